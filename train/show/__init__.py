"""What a run shows: terminal, figures and pages."""

"""What a run keeps on disk: its folder, its log and its checkpoints."""

"""Who may import whom: tests/architecture enforces it, and the architecture page shows it."""

GROUND = {"flaxunet.labels", "flaxunet.preprocessing", "flaxunet.files", "flaxunet.lookahead"}
"""Anyone may import these; and train and porting the face of flaxunet."""
MAY_IMPORT = {
    "flaxunet.labels": set(),
    "flaxunet.preprocessing": set(),
    "flaxunet.files": set(),
    "flaxunet.lookahead": set(),
    "flaxunet.ops": set(),
    "flaxunet.models": {"flaxunet.ops"},
    "flaxunet.losses": set(),
    "flaxunet.metrics": set(),
    "flaxunet.io": set(),
    "flaxunet.weights": {"flaxunet.models", "flaxunet.ops"},
    "flaxunet.report": {"flaxunet.io"},
    "flaxunet.data": {"flaxunet.io", "flaxunet.report"},
    "flaxunet.prediction": {"flaxunet.models", "flaxunet.weights", "flaxunet.io", "flaxunet.report"},
    "flaxunet.hub": {"flaxunet.weights", "flaxunet.models", "flaxunet.report"},
    "flaxunet.evaluation": {
        *("flaxunet.io", "flaxunet.data", "flaxunet.weights", "flaxunet.prediction", "flaxunet.metrics"),
        "flaxunet.report",
    },
    "flaxunet.export": {"flaxunet.ops", "flaxunet.models", "flaxunet.prediction", "flaxunet.report"},
    "flaxunet.app": {"flaxunet.io", "flaxunet.prediction", "flaxunet.hub", "flaxunet.report"},
    "flaxunet.cli": {"flaxunet"},
    "flaxunet.__init__": {"flaxunet"},
    "flaxunet.__main__": {"flaxunet.cli"},
    "porting": {"flaxunet"},
    "train.config": {"flaxunet", "train.augment"},
    "train.augment": set(),
    "train.devices": {"train.config"},
    "train.data": {"train.config", "flaxunet.io", "flaxunet.data"},
    "train.storage": {"train.config", "train.data", "train.devices", "train.step"},
    "train.show": {
        *("flaxunet.metrics", "flaxunet.report", "train.config", "train.data", "train.storage"),
        "train.evaluation",
    },
    **{
        f"train.{name}": {"flaxunet", "train"}
        for name in (
            *("__init__", "__main__", "loop", "setup", "step", "optimizer", "evaluation"),
            *("weights", "dry_run", "cross_validation"),
        )
    },
}
"""Room -> the rooms that its files may import, besides the ground floor and the room itself."""

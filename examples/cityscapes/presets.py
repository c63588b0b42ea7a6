"""Named settings: where each differs from the defaults of `TrainConfig`."""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # Section 5 of the paper for Tiny CityScapes: the defaults themselves.
    "tiny": {},
    # Section 5 for the full resolution, which took the authors 4 GPUs and 5 days.
    "full": {
        "size": (1024, 2048),
        "scale": (0.7, 2.0),
        "crop": (512, 512),
        "iterations": 100_000,
        "batch_size": 16,
        "eval_every": 5_000,
        "num_workers": 8,
        "cache_mb": 0,
    },
    # What two CPU cores can train in minutes on rendered scenes.
    "demo": {
        "size": (64, 128),
        "backbone": "resnet18",
        "backbone_weights": "none",
        # Half of the trunk at twice the resolution: at stride 8, poles and people would vanish.
        "stages": 2,
        "output_stride": 4,
        "aspp_channels": 64,
        "aspp_rates": (4, 8, 16),
        "decoder_channels": 64,
        "start_at_mean": True,
        "optimizer": "adamw",
        "learning_rate": 2e-3,
        "warmup": 50,
        "sigma_lr": 4e-2,
        "batch_size": 8,
        "iterations": 1400,
        "eval_every": 0,
        "tensorboard": False,
    },
    # What two CPU cores can train some 30 times within an hour, for the experiments.
    "quick": {
        "size": (64, 128),
        "backbone": "resnet18",
        "backbone_weights": "none",
        "stages": 2,
        "output_stride": 4,
        "aspp_channels": 32,
        "aspp_rates": (4, 8, 16),
        "decoder_channels": 32,
        "start_at_mean": True,
        "optimizer": "adamw",
        "learning_rate": 2e-3,
        "warmup": 50,
        # With fewer iterations than the demo, sigma has to reach its optimum sooner.
        "sigma_lr": 1e-1,
        "batch_size": 4,
        "iterations": 600,
        "checkpoint_every": 100,
        "eval_every": 0,
        "tensorboard": False,
    },
}

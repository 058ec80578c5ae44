"""Fine-tuning: from recordings to a checkpoint that `sglang_moss.fuse` takes."""

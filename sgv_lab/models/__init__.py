"""The model families, their checkpoints in and out, and the Qwen-VL port."""

"""The miniature's base: what stands for CLIP, Vicuna and LLaVA's projector, and its abilities."""

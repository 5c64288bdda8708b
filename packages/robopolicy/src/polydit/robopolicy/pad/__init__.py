"""PAD: future pictures and actions, denoised together (Guo et al. 2024)."""

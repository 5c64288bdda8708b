"""MoDE (Reuss et al. 2024, "Efficient Diffusion Transformer Policies with Mixture of Expert Denoisers")."""

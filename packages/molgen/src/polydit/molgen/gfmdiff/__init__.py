"""GFMDiff (Xu et al. 2024, "Geometric-Facilitated Denoising Diffusion Model for 3D Molecule Generation", AAAI).

Its network, its diffusion and its geometric loss. One step of the published size takes seconds for a single molecule on
a CPU, so ADiT is what `molgen sample` runs; the geometric loss serves ADiT's training too.
"""

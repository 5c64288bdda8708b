"""From noise to samples: one denoising loop over diffusers' schedulers, guidance in one batch, plain ODE steps."""

from polydit.core.sampling.guidance import guide, guided_model
from polydit.core.sampling.loop import denoise
from polydit.core.sampling.ode import integrate

__all__ = ["denoise", "guide", "guided_model", "integrate"]

"""PAD as a policy: pictures, state and instruction in, a chunk of actions (and the pictures that follow) out.

What is generated are the environment's own actions. The agent published for MetaWorld generates future poses of the
hand instead (position and gripper, state[:4]), one for each future frame, and leaves it to a motion planner to reach
the first of them; its converted weights speak of those poses.

Shapes: b items, h horizon, a action dimensions, f future frames, n pictures, c picture channels, y x picture size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from jaxtyping import Bool, Float
from torch import Tensor

from polydit.core.errors import CheckpointError, InputError
from polydit.core.jobs.seeds import item_generator
from polydit.core.sampling.cache import Cache, CacheReport, cached
from polydit.robopolicy.batch import PolicyBatch
from polydit.robopolicy.pad.network import Modalities, PADTransformer
from polydit.robopolicy.pad.objective import JointDiffusion

__all__ = ["PADPolicy", "load_encoder"]

NUM_STEPS = 50  # network calls of the published MetaWorld evaluation


@dataclass(eq=False)
class PADPolicy:
    """Joint denoising of future frames and actions.

    The network's config decides whether frames are denoised too (`joint`) or their slots are zero in training and in
    sampling (`joint=False`): the same network and steps, for a comparison.

    Args:
        network: The network, without depth maps: a `PolicyBatch` has none.
        encoder: Autoencoder of the pictures, frozen, or the folder of one; None = the network works on pixels.
        action_weight: Weight of the actions' loss beside the frames'. Published: 1 (after 50 000 steps, before 0).

    Raises:
        InputError: If the network denoises depth maps, or no actions.
        CheckpointError: As `load_encoder`.
    """

    network: PADTransformer
    encoder: AutoencoderKL | Path | str | None = None
    action_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.network.names != ("images", "actions"):
            problem = f"this network denoises {' and '.join(self.network.names)}"
            raise InputError(problem, expected="images and actions: data sets give no depth maps")
        self.diffusion = JointDiffusion(prediction=self.network.config.prediction)
        encoder = load_encoder(Path(self.encoder)) if isinstance(self.encoder, (str, Path)) else self.encoder
        self.autoencoder = None if encoder is None else encoder.requires_grad_(False).eval()

    @property
    def horizon(self) -> int:
        """Actions in a chunk h."""
        return int(self.network.config.horizon)

    @property
    def action_dim(self) -> int:
        """Numbers in an action a."""
        return int(self.network.config.action_dim)

    @property
    def num_steps(self) -> int:
        """Default number of network calls per chunk."""
        return NUM_STEPS

    @property
    def solver(self) -> str:
        """Ancestral sampling."""
        return "ddpm"

    @property
    def future_offsets(self) -> tuple[int, ...]:
        """How many steps after the observation each future frame is taken; none of them is the present.

        One published program (`train_cotrain.py`) does the same; the other (`train_robot.py`) begins with the present
        frame, and so learns to repeat it.
        """
        config = self.network.config
        return tuple(config.frame_skip * (i + 1) for i in range(config.future_frames if config.joint else 0))

    def loss(self, batch: PolicyBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """The joint loss, as "loss", and for each modality its part and its squared error.

        Actions after an episode's end do not count. An item that has none before it is a video without actions: its
        frames count, and nothing sees its action token.

        Raises:
            InputError: If the batch lacks actions, pictures or, for joint training, future pictures.
        """
        if batch.actions is None or batch.action_is_pad is None:
            raise InputError("the batch has no actions", expected="actions and action_is_pad, for training")
        real = ~batch.action_is_pad
        has_actions = real.any(1)
        data = Modalities(images=self._future(batch), actions=batch.actions)
        terms = self.diffusion.loss(
            self.network,
            data,
            self._now(batch),
            pooled(batch.language, batch.language_mask),
            generator,
            counted={"actions": real[..., None].to(batch.actions)},
            # a mask for each item costs time, and most batches need none
            present=None if bool(has_actions.all()) else {"actions": has_actions},
        )
        return {"loss": terms.get("images", 0.0) + self.action_weight * terms["actions"], **terms}

    @torch.no_grad()
    def sample(
        self,
        batch: PolicyBatch,
        noise: Float[Tensor, "b h a"],
        num_steps: int | None = None,
        *,
        cache: str | Cache | None = None,
        on_cache: Callable[[CacheReport], object] | None = None,
    ) -> Float[Tensor, "b h a"]:
        """Normalised actions from standard normal noise.

        Sampling is stochastic: the frames' noise and that of every step are drawn from a generator that the item's own
        `noise` seeds, so equal noise gives equal actions, in any batch.

        Args:
            batch: Observations.
            noise: Standard normal noise.
            num_steps: Network calls, at least 2; None = 50.
            cache: See `ActionModel`. New noise in every step leaves it little to forecast from.
            on_cache: Told what it did.

        Raises:
            InputError: If the pictures are missing or of another size, there are too few steps, or no such cache.
        """
        return self._denoise(batch, noise, num_steps, cache, on_cache)["actions"]

    @torch.no_grad()
    def imagine(
        self, batch: PolicyBatch, noise: Float[Tensor, "b h a"], num_steps: int | None = None
    ) -> tuple[Float[Tensor, "b f 3 y x"], Float[Tensor, "b h a"]]:
        """The pictures that the policy expects, in [0, 1], and the actions that `sample` gives for the same noise.

        Raises:
            InputError: As `sample`, and if the policy was not trained jointly.
        """
        if not self.network.config.joint:
            raise InputError("this policy was trained on actions alone", expected="a joint one")
        made = self._denoise(batch, noise, num_steps)
        return self._decode(made["images"]), made["actions"]

    def _denoise(
        self,
        batch: PolicyBatch,
        noise: Float[Tensor, "b h a"],
        num_steps: int | None,
        cache: str | Cache | None = None,
        on_cache: Callable[[CacheReport], object] | None = None,
    ) -> Modalities:
        steps = self.num_steps if num_steps is None else num_steps
        if not 2 <= steps <= 1000:
            raise InputError(f"{steps} steps", where="num_steps", expected="2 to 1000")
        generators = [_generator_of(row) for row in noise]
        now, frames = self._now(batch), None
        if self.network.config.joint:
            shape = (self.network.config.future_frames, *now["images"].shape[2:])
            drawn = [torch.randn(shape, generator=generator) for generator in generators]
            frames = torch.stack(drawn).to(noise)
        text = pooled(batch.language, batch.language_mask)
        start = Modalities(images=frames, actions=noise)
        with cached(self.network, cache, self.diffusion.clock(steps), on_report=on_cache):
            return self.diffusion.sample(self.network, start, now, text, steps, generators)

    def _now(self, batch: PolicyBatch) -> Modalities:
        """The present frame, and the part of the state that the network knows: its first `state_dim` numbers."""
        if batch.images is None or batch.images.shape[1] != 1:
            cameras = 0 if batch.images is None else batch.images.shape[1]
            raise InputError(f"PAD sees one camera, and the batch has {cameras}")
        known = self.network.config.state_dim
        if batch.state.shape[1] < known:
            raise InputError(f"the state has {batch.state.shape[1]} numbers", expected=f"at least {known}")
        state = batch.state[:, None, :known] if known else None
        return Modalities(images=self._encode(batch.images), actions=state)

    def _future(self, batch: PolicyBatch) -> Float[Tensor, "b f c y x"] | None:
        if not self.network.config.joint:
            return None
        count = 0 if batch.future_images is None else batch.future_images.shape[1]
        if batch.future_images is None or count != self.network.config.future_frames:
            expected = f"{self.network.config.future_frames}, at {self.future_offsets} steps from the present"
            raise InputError(f"the batch has {count} future pictures", expected=expected)
        return self._encode(batch.future_images)

    @torch.no_grad()
    def _encode(self, pictures: Float[Tensor, "b n 3 y x"]) -> Float[Tensor, "b n c v w"]:
        """Pictures in [0, 1] to what the network sees: pixels in [-1, 1], or scaled latents of them.

        The published agent draws from the encoder's posterior; its mode is used here, so that an observation has one
        meaning. It maps 0..255 by (x - 128) / 127.5, which differs by 0.004.
        """
        seen = 2.0 * pictures - 1.0
        if self.autoencoder is not None:
            vae = self.autoencoder.to(pictures.device)
            latents = vae.encode(seen.flatten(0, 1).to(vae.dtype)).latent_dist.mode().to(pictures)
            seen = (latents * vae.config.scaling_factor).unflatten(0, pictures.shape[:2])
        config = self.network.config
        wanted = (config.in_channels, config.sample_size, config.sample_size)
        if seen.shape[2:] != wanted:
            raise InputError(
                f"pictures of {tuple(pictures.shape[3:])} pixels come to {tuple(seen.shape[2:])}",
                expected=f"{wanted} (channels, height, width), as the network was trained",
                hint="A network of latents needs the folder of the autoencoder"
                if not self.autoencoder
                else None,
            )
        return seen

    def _decode(self, seen: Float[Tensor, "b f c v w"]) -> Float[Tensor, "b f 3 y x"]:
        if self.autoencoder is not None:
            latents = seen.flatten(0, 1).to(self.autoencoder.dtype) / self.autoencoder.config.scaling_factor
            seen = self.autoencoder.decode(latents).sample.to(seen).unflatten(0, seen.shape[:2])
        return (seen / 2.0 + 0.5).clamp(0.0, 1.0)


def load_encoder(folder: Path) -> AutoencoderKL:
    """An autoencoder of pictures that diffusers' `save_pretrained` wrote, such as a copy of ``sd-vae-ft-mse``.

    Raises:
        CheckpointError: If it is missing or damaged.
    """
    try:
        return AutoencoderKL.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"the autoencoder cannot be read ({error})", where=str(folder)) from error


def pooled(language: Float[Tensor, "b l e"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b e"]:
    """One vector per instruction: the mean of its tokens, which for CLIP's pooled embedding is that one vector."""
    weight = mask[..., None].to(language)
    return (language * weight).sum(1) / weight.sum(1).clamp(min=1.0)


def _generator_of(noise: Float[Tensor, "h a"]) -> torch.Generator:
    """A CPU generator that depends on this item's noise alone."""
    return item_generator(0, noise.float().cpu().numpy().tobytes().hex())

"""What a network learns: the path from noise to data, the prediction, the distribution of times, the weights."""

from polydit.core.objectives.diffusion import GaussianDiffusion, respace
from polydit.core.objectives.edm import EDM
from polydit.core.objectives.flow import FlowMatching, LinearPath, NoisySample
from polydit.core.objectives.times import (
    LogitNormalTimes,
    LogLogisticNoise,
    LogNormalNoise,
    TimeDistribution,
    UniformTimes,
    shift_time,
)

__all__ = [
    "EDM",
    "FlowMatching",
    "GaussianDiffusion",
    "LinearPath",
    "LogLogisticNoise",
    "LogNormalNoise",
    "LogitNormalTimes",
    "NoisySample",
    "TimeDistribution",
    "UniformTimes",
    "respace",
    "shift_time",
]

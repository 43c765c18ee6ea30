"""Rewrites a network so that inference kernels which round differently give the same bytes.

A quantised layer multiplies its int32 sum by a constant, rounding twice (the sum times a 32-bit fraction,
then a right shift), and adds the zero point of its output. In the second step TFLite-Micro rounds ties away
from zero, LiteRT's built-in kernels (x86-64) upwards: they differ for *negative* ties (one value
of about 200). If no value is negative before the zero point is added, they agree. LiteRT's reference kernels
round once, its XNNPACK kernels differently again: those do not agree with TFLite-Micro.

Decides: how the outputs of an inner linear dense layer are shifted to be at least 0 on the sample, and that
what follows undoes the shift. Does not: touch the last layer, whose values mean something to others (give it
values from 0 on and zero point -128 where equal bytes matter), or linear convolutions. ReLU needs
nothing. Softmax kernels rarely differ by one step whatever comes before: a model that must give equal bytes
ends before its softmax.

Invariant: on the sample, the rewritten network computes the same outputs, up to floating-point rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from aif.authoring.layers import Dense, Layer, Softmax, trace


def without_negative_sums(layers: Sequence[Layer], sample: npt.NDArray[np.float64]) -> list[Layer]:
    """Shift linear dense layers that feed a dense layer or a softmax.

    A dense layer takes the shift of each input back in its bias; a softmax does not notice a common shift.

    Args:
        layers: the network.
        sample: float[n, ...], inputs that show the least value of every output.
    """
    rewritten = list(layers)
    for number, values in enumerate(trace(layers, sample)[:-1]):
        layer, following = rewritten[number], rewritten[number + 1]
        if not isinstance(layer, Dense) or layer.relu:
            continue
        if isinstance(following, Softmax):
            rewritten[number] = Dense(layer.weights, layer.bias - values.min())
        elif isinstance(following, Dense):
            least = values.min(0)
            rewritten[number] = Dense(layer.weights, layer.bias - least)
            rewritten[number + 1] = Dense(
                following.weights, following.bias + least @ following.weights, following.relu
            )
    return rewritten

"""Defines the ranges of the random changes for each strength of augmentation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ranges:
    """Ranges of the random changes. Draws are symmetric about "no change", or start from there.

    Attributes:
      quarter_turns: also turn by 90 and 270 degrees (square images only). Without it, images are mirrored in
        both directions, which includes the half turn, and keep their axes.
      scale: zoom, log-uniform in [1 / scale, scale].
      degrees: rotation about the centre, uniform in [-degrees, degrees].
      shift: translation in each direction, uniform, as a fraction of that side.
      elastic: displacement of each control point of a smooth warp, uniform in both directions, as a fraction
        of that side; below 0.08 the image does not fold, at any zoom up to 1.5.
      cutout: sides of a rectangle that becomes padding, each uniform in [0, cutout], as a fraction of that
        side.
      stain: change of the absorption by hematoxylin, eosin and DAB each: factor uniform in
        [1 - stain, 1 + stain], offset uniform in [-stain, stain]. Only for images with three channels.
      hue: rotation of the colours about the gray axis, uniform in [-hue, hue], in degrees. Channels as stain.
      saturation: factor on the distance from gray, log-uniform in [1 / saturation, saturation]. As hue.
      gamma: exponent on intensities, log-uniform in [1 / gamma, gamma].
      contrast: factor about the image's mean, log-uniform in [1 / contrast, contrast].
      brightness: offset, uniform in [-brightness, brightness], where 1 is the full range from black to white.
      blur: standard deviation of a Gaussian, uniform in [0, blur], in pixels.
      noise: standard deviation of white noise, uniform in [0, noise], in the unit of brightness.
    """

    quarter_turns: bool = False
    scale: float = 1.0
    degrees: float = 0.0
    shift: float = 0.0
    elastic: float = 0.0
    cutout: float = 0.0
    stain: float = 0.0
    hue: float = 0.0
    saturation: float = 1.0
    gamma: float = 1.0
    contrast: float = 1.0
    brightness: float = 0.0
    blur: float = 0.0
    noise: float = 0.0


# Light and medium keep the axes of upright anatomy. Strong treats orientation as meaningless, as it is in
# microscopy: the eight symmetries of the square and 45 degrees either way cover the whole circle.
RANGES: dict[str, Ranges | None] = {
    "none": None,
    "light": Ranges(contrast=1.05, brightness=0.02),
    "medium": Ranges(scale=1.15, degrees=15, shift=0.05, elastic=0.02,
                     hue=8, saturation=1.2, gamma=1.25, contrast=1.25, brightness=0.1, blur=0.8, noise=0.03),
    "strong": Ranges(quarter_turns=True, scale=1.4, degrees=45, shift=0.1, elastic=0.05, cutout=0.3,
                     hue=20, saturation=1.5, gamma=1.5, contrast=1.5, brightness=0.15, blur=1.5, noise=0.08),
}  # fmt: skip

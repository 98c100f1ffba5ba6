"""Compute image domains from one RGB-D frame, as pure functions.

These are Taskonomy's geometric and edge domains, computed from depth, colour and camera only.
``SyntheticRooms`` and the derivation of domains from real frames share them.

Conventions in this module:

- camera frame: x right, y down, z forward; metres. Depth is z depth, 0 = missing.
- ``intrinsics`` is the (3, 3) pinhole matrix, pixel centres at integer coordinates.
- normals are unit vectors that face the camera; (0, 0, 0) = unknown.
- curvature is in 1/m, positive where the surface bulges towards the camera.

On a plane, inverse depth is an affine function of the pixel coordinates. Two functions use this:
the normal is the direction of the coefficients, and a second difference that is not 0 is an edge.
"""

from collections.abc import Sequence

import cv2
import numpy as np


def check_map(name: str, array: np.ndarray, channels: int | None = None) -> None:
    """Raise ValueError unless ``array`` is (H, W), or (H, W, channels) where channels is given."""
    wanted = '(H, W)' if channels is None else f'(H, W, {channels})'
    ndim = 2 if channels is None else 3
    if array.ndim != ndim or (channels is not None and array.shape[-1] != channels):
        hint = ': squeeze the channel axis' if channels is None and array.ndim == 3 else ''
        raise ValueError(f'{name} must have shape {wanted}, got {array.shape}{hint}')


def camera_matrix(
    camera: Sequence[float], size: Sequence[int], height: int, width: int
) -> np.ndarray:
    """Return the pinhole matrix (3, 3) of resized frames; pixel centres are at integers.

    Args:
        camera: fx, fy, cx, cy in pixels.
        size: (width, height) of the frames for which ``camera`` was calibrated.
        height, width: Size of the resized frames.

    Raises:
        ValueError: If there are not four and two numbers, or a focal length or size is not
            positive.
    """
    if len(camera) != 4 or len(size) != 2 or min(*camera[:2], *size) <= 0:
        raise ValueError(
            f'camera {camera} and size {size} are not (fx, fy, cx, cy) in pixels and (width, '
            'height), with focal lengths and sizes above 0'
        )
    (fx, fy, cx, cy), sx, sy = camera, width / size[0], height / size[1]
    return np.array(
        [[fx * sx, 0, (cx + 0.5) * sx - 0.5], [0, fy * sy, (cy + 0.5) * sy - 0.5], [0, 0, 1]]
    )


def pixel_rays(height: int, width: int, intrinsics: np.ndarray) -> np.ndarray:
    """Return viewing rays of all pixels, (H, W, 3) float32, scaled so that z = 1."""
    fx, fy = intrinsics[0, 0], intrinsics[1, 1]
    x = (np.arange(width, dtype=np.float32) - np.float32(intrinsics[0, 2])) / np.float32(fx)
    y = (np.arange(height, dtype=np.float32) - np.float32(intrinsics[1, 2])) / np.float32(fy)
    rays = np.ones((height, width, 3), np.float32)
    rays[..., 0] = x
    rays[..., 1] = y[:, None]
    return rays


def backproject(depth: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Return points (H, W, 3) float32 in metres of a z depth map (H, W); 0 for missing depth."""
    check_map('depth', depth)
    return pixel_rays(depth.shape[0], depth.shape[1], intrinsics) * depth[..., None].astype(
        np.float32
    )


def euclidean_depth(depth: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Convert z depth to the distance to the camera centre, (H, W) float32; missing stays 0."""
    return np.linalg.norm(backproject(depth, intrinsics), axis=-1)


def normals_from_depth(
    depth: np.ndarray, intrinsics: np.ndarray, radius: int = 1, jump: float = 0.05
) -> np.ndarray:
    """Estimate surface normals by a least-squares plane around every pixel.

    Inverse depth is fitted by an affine function of the pixel coordinates, over the pixels of a
    window whose depth is known and close to that of the centre. This is exact on planes.

    Args:
        depth: Z depth (H, W) in metres, 0 = missing.
        intrinsics: (3, 3).
        radius: Windows have (2 * radius + 1) ** 2 pixels. Noisy or coarsely quantised depth needs 3
            or more.
        jump: Pixels whose depth differs by more than this share of the centre's depth are ignored,
            so that windows do not cross occlusion edges.

    Returns:
        Normals (H, W, 3) float32 in [-1, 1], facing the camera; 0 where depth is missing or fewer
        than three known neighbours span a plane.

    Raises:
        ValueError: If depth is not (H, W), or radius is below 1.
    """
    check_map('depth', depth)
    if radius < 1:
        raise ValueError(f'radius must be at least 1, got {radius}')
    known = depth > 0
    inverse = np.divide(1.0, depth, where=known, out=np.zeros(depth.shape))
    slope_u, slope_v, level = _fit_affine(inverse, known, radius, jump)
    rays = pixel_rays(depth.shape[0], depth.shape[1], intrinsics)
    # n . P = const on a plane, so n . (x, y, 1) is proportional to 1 / z
    nx, ny = slope_u * intrinsics[0, 0], slope_v * intrinsics[1, 1]
    normals = np.stack([nx, ny, level - nx * rays[..., 0] - ny * rays[..., 1]], axis=-1)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    normals = np.divide(-normals, length, where=length > 0, out=np.zeros_like(normals))
    return normals.astype(np.float32)


def _fit_affine(
    values: np.ndarray,
    known: np.ndarray,
    radius: int,
    jump: float | np.ndarray,
    stride: int = 1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return least-squares (slope_u, slope_v, level) around every pixel, 0 if undetermined.

    ``values`` is inverse depth, so relative differences of values equal those of depths. Every
    ``stride``-th pixel of the window is used.
    """
    height, width = values.shape
    padded = np.pad(values, radius)
    usable = np.pad(known, radius)
    # moments: 1, u, v, uu, uv, vv, q, uq, vq
    moments = np.zeros((9, height, width))
    for dv in range(-radius, radius + 1, stride):
        for du in range(-radius, radius + 1, stride):
            window = np.s_[radius + dv :, radius + du :]
            q = padded[window][:height, :width]
            near = np.abs(q - values) <= jump * np.maximum(q, values)
            weight = (near & known & usable[window][:height, :width]).astype(values.dtype)
            weighted = q * weight
            for k, factor in enumerate((1, du, dv, du * du, du * dv, dv * dv)):
                if factor:
                    moments[k] += factor * weight
            for k, factor in enumerate((1, du, dv), start=6):
                if factor:
                    moments[k] += factor * weighted
    count, su, sv, suu, suv, svv, sq, suq, svq = moments
    count = np.maximum(count, 1)
    # centred second moments, then a 2x2 solve
    cuu, cuv, cvv = suu - su * su / count, suv - su * sv / count, svv - sv * sv / count
    cuq, cvq = suq - su * sq / count, svq - sv * sq / count
    det = cuu * cvv - cuv * cuv
    solved = det > 1e-6
    safe = np.where(solved, det, 1)
    slope_u = np.where(solved, (cuq * cvv - cvq * cuv) / safe, 0)
    slope_v = np.where(solved, (cvq * cuu - cuq * cuv) / safe, 0)
    level = np.where(solved, (sq - slope_u * su - slope_v * sv) / count, 0)
    return slope_u, slope_v, level


def smooth_depth(
    depth: np.ndarray,
    step: float,
    radius: int | None = None,
    jump: float = 0.04,
    noise: float = 0.0019,
) -> np.ndarray:
    """Remove the steps that coarse quantisation makes on slanted surfaces.

    A step is flat and many pixels wide, so small windows contain flat strips between edges, and
    large ones lose all detail. Therefore smoothing goes from coarse to fine: inverse depth, which
    is affine on every plane, is replaced by the value of its least-squares plane, in windows of the
    radius, 1/2 and 1/6 of it, over pixels close to the centre's depth. Each time the result is
    limited to the measured depth plus or minus a step and the sensor's noise, so that borders and
    small objects do not move.

    Args:
        depth: Z depth (H, W) in metres, 0 = missing.
        step: Step of quantisation, in metres; 0 = none.
        radius: Radius of the largest window, in pixels, at least 6; it should exceed the width of a
            step. Default: 7 % of the shorter side, which is enough for NYUv2 in 8 bits.
        jump: Share of the centre's depth by which pixels of the same surface may differ; a few
            steps are always allowed.
        noise: Standard deviation in metres at 1 m, which grows with the square of depth; by default
            that of a Kinect (Nguyen, Izadi, Lovell, 2012).

    Returns:
        (H, W) float32 in metres, 0 where it is missing.

    Raises:
        ValueError: If depth is not (H, W), radius is below 6, or step or noise is negative.
    """
    check_map('depth', depth)
    radius = max(6, round(0.07 * min(depth.shape))) if radius is None else radius
    if radius < 6 or step < 0 or noise < 0:
        raise ValueError(
            f'radius must be at least 6, step and noise not negative, got {radius}, {step}, {noise}'
        )
    known = depth > 0
    slack = step + noise * np.square(depth, dtype=np.float64)
    deepest = np.where(known, depth + slack, 1)
    nearest = np.where(known, np.maximum(depth - slack, depth / 2), 1)
    inverse = np.divide(1.0, depth, where=known, out=np.zeros(depth.shape))
    near = np.maximum(jump, 3 * slack * inverse)
    for size in (radius, radius // 2, radius // 6):
        stride = max(1, size // 3)
        level = _fit_affine(inverse, known, 3 * stride, near, stride)[2]
        level = np.where(level > 0, level, inverse)
        inverse = np.where(known, np.clip(level, 1 / deepest, 1 / nearest), 0)
    return np.divide(1, inverse, where=known, out=np.zeros(depth.shape)).astype(np.float32)


def reshading(
    normals: np.ndarray, light: tuple[float, float, float] = (0.0, 0.0, -1.0)
) -> np.ndarray:
    """Compute Lambertian shading of white surfaces, (H, W) float32 in [0, 1].

    Args:
        normals: (H, W, 3), facing the camera; unknown (0, 0, 0) gives 0.
        light: Direction *towards* the light in the camera frame, any length; default: a head
            light, as in Taskonomy.

    Raises:
        ValueError: If normals are not (H, W, 3), or light is zero.
    """
    check_map('normals', normals, 3)
    direction = np.asarray(light, np.float32)
    length = float(np.linalg.norm(direction))
    if direction.shape != (3,) or length == 0:
        raise ValueError(f'light must be a direction of 3 numbers, not all 0, got {light}')
    # summed by component, because the rounding of BLAS depends on the memory layout
    return np.clip((normals * (direction / length)).sum(axis=-1), 0, 1).astype(np.float32)


def texture_edges(rgb: np.ndarray, sigma: float = 1.0) -> np.ndarray:
    """Compute the gradient magnitude of the smoothed luminance, (H, W) float32 in [0, 1].

    Args:
        rgb: (H, W, 3) uint8, or float in [0, 1].
        sigma: Standard deviation of the Gaussian, in pixels; 0 = none.

    Returns:
        Luminance (full range 1) per pixel.

    Raises:
        ValueError: If ``rgb`` is not (H, W, 3).
    """
    check_map('rgb', rgb, 3)
    scale = 1 / 255 if rgb.dtype == np.uint8 else 1
    grey = cv2.cvtColor(rgb.astype(np.float32) * np.float32(scale), cv2.COLOR_RGB2GRAY)
    if sigma > 0:
        grey = cv2.GaussianBlur(grey, (0, 0), sigma)
    dx = cv2.Sobel(grey, cv2.CV_32F, 1, 0, scale=1 / 8)
    dy = cv2.Sobel(grey, cv2.CV_32F, 0, 1, scale=1 / 8)
    return np.clip(np.sqrt(dx * dx + dy * dy), 0, 1)


def occlusion_edges(depth: np.ndarray, threshold: float = 0.03) -> np.ndarray:
    """Compute depth discontinuities, (H, W) float32 in [0, 1], on both sides of the border.

    The value is the second difference of inverse depth (0 on any plane, however slanted) in
    units of the nearest of the three pixels, which is ``1 - z_near / z_far`` at a step.

    Args:
        depth: Z depth (H, W) in metres, 0 = missing. There is no edge beside a missing pixel.
        threshold: Weaker edges are set to 0. A right-angled crease has about
            ``2 / focal length in pixels``.

    Raises:
        ValueError: If depth is not (H, W).
    """
    check_map('depth', depth)
    known = depth > 0
    inverse = np.divide(1, depth, where=known, out=np.zeros(depth.shape, np.float32))
    edges = np.zeros(depth.shape, np.float32)
    for q, k, out in ((inverse, known, edges), (inverse.T, known.T, edges.T)):
        second = np.abs(q[:, :-2] - 2 * q[:, 1:-1] + q[:, 2:])
        nearest = np.maximum(np.maximum(q[:, :-2], q[:, 1:-1]), q[:, 2:])
        sure = k[:, :-2] & k[:, 1:-1] & k[:, 2:]
        strength = np.where(sure, second / np.maximum(nearest, 1e-12), 0)
        np.maximum(out[:, 1:-1], strength, out=out[:, 1:-1])
    return np.where(edges >= threshold, np.minimum(edges, 1), 0).astype(np.float32)


def principal_curvature(normals: np.ndarray, points: np.ndarray, limit: float = 50.0) -> np.ndarray:
    """Compute both principal curvatures, the eigenvalues of the shape operator.

    They follow from the first and second fundamental forms by central differences: 0 on planes,
    1 / r on spheres, (1 / r, 0) on cylinders. Noise of the normals is divided by the size of a
    pixel on the surface, so smooth them first (``normals_from_depth`` with a larger radius).

    Args:
        normals: (H, W, 3), facing the camera.
        points: (H, W, 3) in metres, as from ``backproject``.
        limit: Values are clipped to [-limit, limit] (creases have no finite curvature).

    Returns:
        (H, W, 2) float32 in 1/m, the larger first; 0 where a normal is unknown, a point is missing,
        or there is an occlusion edge.

    Raises:
        ValueError: If a shape is not (H, W, 3), or the two differ.
    """
    check_map('normals', normals, 3)
    check_map('points', points, 3)
    if normals.shape != points.shape:
        raise ValueError(f'normals {normals.shape} and points {points.shape} differ in shape')
    pv, pu = np.gradient(points, axis=(0, 1))
    nv, nu = np.gradient(normals, axis=(0, 1))

    def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a * b).sum(axis=-1)

    e1, f1, g1 = dot(pu, pu), dot(pu, pv), dot(pv, pv)
    e2, f2, g2 = dot(pu, nu), (dot(pu, nv) + dot(pv, nu)) / 2, dot(pv, nv)
    det = e1 * g1 - f1 * f1
    # relative: the squared sine of the viewing angle; a surface seen edge-on has no curvature
    regular = _surface_inside(normals, points) & (det > 1e-6 * e1 * g1) & (det > 1e-12)
    safe = np.where(regular, det, 1)
    mean = (e2 * g1 - 2 * f2 * f1 + g2 * e1) / (2 * safe)
    gauss = (e2 * g2 - f2 * f2) / safe
    root = np.sqrt(np.maximum(mean * mean - gauss, 0))
    curvature = np.stack([mean + root, mean - root], axis=-1)
    return np.where(regular[..., None], np.clip(curvature, -limit, limit), 0).astype(np.float32)


def _surface_inside(normals: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Whether central differences at a pixel stay on one known surface, boolean (H, W)."""
    depth = points[..., 2]
    known = ((depth > 0) & normals.any(axis=-1)).astype(np.uint8)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inside = cv2.erode(known, cross, borderType=cv2.BORDER_REPLICATE)
    edges = occlusion_edges(depth) > 0
    # the frame's border has no second difference: use the value of the next pixel
    edges |= np.pad(edges[1:-1, 1:-1], 1, mode='edge')
    return (inside > 0) & ~edges

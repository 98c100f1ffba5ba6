"""Synthetic indoor scenes: textures, shapes, scene, sampler, ray-caster, sensor."""

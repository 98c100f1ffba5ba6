from .network import DeployedNetwork, Labelled, as_it_is, deploy, padded
from .onnx import OnnxNetwork, export_onnx

__all__ = [
    'DeployedNetwork',
    'Labelled',
    'OnnxNetwork',
    'as_it_is',
    'deploy',
    'export_onnx',
    'padded',
]

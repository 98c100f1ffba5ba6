from .network import DeployedNetwork, as_it_is, deploy
from .onnx import OnnxNetwork, export_onnx

__all__ = ['DeployedNetwork', 'OnnxNetwork', 'as_it_is', 'deploy', 'export_onnx']

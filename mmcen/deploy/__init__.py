from .network import DeployedNetwork, deploy

__all__ = ['DeployedNetwork', 'deploy']

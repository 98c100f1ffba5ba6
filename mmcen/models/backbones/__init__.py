from .cen_resnet import CENResNet

__all__ = ['CENResNet']

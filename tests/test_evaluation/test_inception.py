"""The extractor from a file: the same network as torch-fidelity's, and nothing from elsewhere."""

import hashlib
import pickle
import socket

import pytest
import torch
from mmengine.logging import MMLogger

from mmcen.evaluation import TranslationMetric
from mmcen.evaluation.inception import Inception

fidelity = pytest.importorskip(
    'torch_fidelity.feature_extractor_inceptionv3', reason='FID and KID need torch-fidelity'
)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """A file as torch-fidelity's, of random values."""

    class Unloaded(fidelity.FeatureExtractorInceptionV3):
        def load_state_dict(self, state, *args, **kwargs):
            pass

    folder = tmp_path_factory.mktemp('weights')
    torch.save({}, folder / 'empty.pth')
    network = Unloaded('inception-v3-compat', ['2048'], str(folder / 'empty.pth'))
    torch.save(network.state_dict(), folder / 'random.pth')
    return folder / 'random.pth'


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError('something is downloaded')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    monkeypatch.setattr(fidelity, 'load_state_dict_from_url', refuse)


def test_features_are_torch_fidelitys(weights):
    rival = fidelity.FeatureExtractorInceptionV3('inception-v3-compat', ['2048'], str(weights))
    ours = Inception(weights).eval()
    images = torch.randint(0, 256, (2, 3, 40, 64), dtype=torch.uint8)
    with torch.no_grad():
        expected = rival(images)[0]
        found = ours(images)
    assert found.shape == (2, 2048)
    assert torch.equal(found, expected)
    assert found.std() > 0


def test_metric_records_its_extractor(weights, tmp_path):
    log = tmp_path / 'run.log'
    MMLogger.get_instance('inception', logger_name='inception', log_file=str(log))
    metric = TranslationMetric(dict(rgb=['FID']), extractor=str(weights))
    for _ in range(2):
        pred, target = torch.rand(2, 3, 32, 32) * 255
        outputs = {'rgb': {'ensemble': {'pred': pred}}}
        metric.process({}, [{'outputs': outputs, 'targets': {'rgb': target}}])
    found = metric.evaluate(2)
    assert found['rgb/FID'] > 0
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()[:8]
    text = log.read_text()
    assert f"'random.pth' has the hash {sha256}, the published network 6726825d" in text
    assert f'"source": "random.pth", "sha256": "{sha256}", "resize": "bilinear' in text


class Harm:
    def __reduce__(self):
        return (pytest.fail, ('the file ran code',))


@pytest.mark.parametrize('content', ['code', 'noise', 'other weights', 'empty'])
def test_other_files_are_refused(content, tmp_path):
    path = tmp_path / 'file.pth'
    if content == 'code':
        path.write_bytes(pickle.dumps(Harm()))
    elif content == 'noise':
        path.write_bytes(b'<html>not found</html>')
    elif content == 'other weights':
        torch.save({'conv.weight': torch.zeros(1)}, path)
    else:
        path.write_bytes(b'')
    with pytest.raises(ValueError, match='file.pth. holds no weights of the Inception network'):
        TranslationMetric(dict(rgb=['KID']), extractor=path)

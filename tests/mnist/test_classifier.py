"""The judge: its accuracy, its features, and what it refuses."""

import pytest
import torch
from torch import nn

from jacobian_lab import InputError
from mnist.classifier import Classifier, accuracy, block, check_images

from conftest import relative


def test_accuracy_counts_over_batches():
    classifier = Classifier(8).eval()
    images = torch.randn(7, 1, 32, 32)
    labels = classifier(images).argmax(1)
    labels[:2] = (labels[:2] + 1) % 10
    assert accuracy(classifier, images, labels, batch_size=3) == pytest.approx(5 / 7)
    assert classifier.features(images).shape == (7, classifier.num_features)


def test_the_logits_are_a_linear_layer_on_features_that_ignore_where_things_are():
    torch.manual_seed(0)
    classifier = Classifier(8).double().eval()
    images = torch.randn(3, 1, 32, 32, dtype=torch.float64)
    features = classifier.features(images)
    assert features.shape == (3, 32)
    logits = features @ classifier.head.weight.T + classifier.head.bias
    assert relative(classifier(images), logits) < 1e-14
    assert relative(classifier.body(images).mean((2, 3)), features) < 1e-14


def test_samples_of_a_batch_do_not_see_each_other():
    classifier = Classifier(8).double().eval()
    images = torch.randn(3, 1, 32, 32, dtype=torch.float64)
    assert relative(classifier(images)[1:2], classifier(images[1:2])) < 1e-12


def test_a_block_halves_the_side_by_its_stride():
    assert nn.Sequential(*block(3, 8, stride=2))(torch.randn(2, 3, 32, 32)).shape == (2, 8, 16, 16)


@pytest.mark.parametrize("shape", [(0, 1, 32, 32), (2, 3, 32, 32), (1, 32, 32)])
def test_what_is_no_batch_of_digits_is_refused(shape):
    with pytest.raises(InputError, match=r"shape .*: expected \(N, 1, 32, 32\), N >= 1"):
        check_images("images", torch.zeros(shape))


def test_labels_of_another_number_are_refused():
    with pytest.raises(InputError, match="labels must be a tensor of 4 classes"):
        accuracy(Classifier(8), torch.zeros(4, 1, 32, 32), torch.zeros(3))

"""AdaShare's alternating optimisation of weights and policy."""

from mmengine.optim import OptimWrapperDict
from torch import Tensor


def update_in_turn(optim_wrapper: OptimWrapperDict, loss: Tensor, step: int) -> str:
    """Update ``network`` on an even ``step``, ``policy`` on an odd one; discard other gradients.

    AdaShare alternates between two parts of the training set, 400 batches for the weights and 100
    for the policy in its configuration of Taskonomy, after a warm-up in which all tasks use all
    layers. Here both use all of the shuffled data from the start, and each is updated in half of
    the steps.

    Returns:
        Which of the two was updated.

    Raises:
        ValueError: If there is no optimizer for the policy, or gradients are accumulated, which
            would be discarded.
    """
    if 'policy' not in optim_wrapper.optim_wrappers:
        raise ValueError(
            "the network learns what its tasks share, but optim_wrapper has no 'policy', only "
            f"{list(optim_wrapper.optim_wrappers)}: add policy=dict(type='OptimWrapper', "
            "optimizer=dict(type='Adam', lr=1e-2))"
        )
    for name in ('network', 'policy'):
        count = optim_wrapper[name]._accumulative_counts
        if count > 1:
            raise ValueError(
                f"accumulative_counts is {count} in optim_wrapper['{name}']: where network and "
                'policy take turns it must be 1; raise the batch size'
            )
    learner, idle = ('policy', 'network') if step % 2 else ('network', 'policy')
    optim_wrapper[learner].update_params(loss)
    optim_wrapper[idle].zero_grad()
    return learner

"""AdaShare's alternating optimisation: weights and policy learn from one loss, in turn."""

from mmengine.optim import OptimWrapperDict
from torch import Tensor


def update_in_turn(optim_wrapper: OptimWrapperDict, loss: Tensor, step: int) -> str:
    """Step ``network`` on an even ``step``, ``policy`` on an odd one; the other's gradients go.

    AdaShare alternates between two parts of the training set, 400 batches for the weights and 100
    for the policy in its configuration of Taskonomy, after a warm-up at which all tasks run
    everything. Here every batch serves one or the other from the start, both draw from all of the
    shuffled data, and each learns in half of the steps.

    Returns:
        Which of the two has learned.

    Raises:
        ValueError: No optimizer for the policy, or accumulated gradients, which the turns would
            throw away.
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

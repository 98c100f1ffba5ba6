# Table 8, Task Grouping: the last two tasks share an encoder (143.7 M). Which tasks should,
# projects/paper/task_grouping.py says from trainings of subsets.
_base_ = './taskonomy_normal_to_rgb-depth-shade.py'
model = dict(network=dict(encoder=dict(groups=[0, 1, 1]), decoder=dict(exchange=False)))

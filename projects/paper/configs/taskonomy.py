# What all rows of Tables 4 to 13 on Taskonomy share; a row adds tasks, domains and metrics.
_base_ = [
    '../../../configs/_base_/models/cen_pix2pix.py',
    '../../../configs/_base_/datasets/taskonomy.py',
    '../../../configs/_base_/schedules/pix2pix_300e.py',
    '../../../configs/_base_/default_runtime.py',
]

# One checkpoint for colour and depth, colour alone and depth alone: in about half of the training
# steps one of the two is absent. See docs/robustness.md.
_base_ = 'nyud_lwrefinenet_efflite0_budget.py'
model = dict(modality_dropout=dict(p=0.3, keep_at_least=1))

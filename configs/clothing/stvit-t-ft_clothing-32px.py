# stvit-t_clothing-32px.py from the classifier that configs/cifar10/stvit-t_cifar10.py leaves.
#   python tools/train.py configs/cifar10/stvit-t_cifar10.py
#   python tools/train.py configs/clothing/stvit-t-ft_clothing-32px.py
_base_ = ['./stvit-t_clothing-32px.py']

load_from = 'work_dirs/stvit-t_cifar10/epoch_80.pth'

optim_wrapper = dict(optimizer=dict(lr=2e-4))

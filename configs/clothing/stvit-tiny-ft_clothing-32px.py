# stvit-tiny_clothing-32px.py from the dense classifier that configs/cifar10/vit-tiny_cifar10.py leaves; its head alone
# begins anew.
#   python tools/train.py configs/cifar10/vit-tiny_cifar10.py
#   python tools/train.py configs/clothing/stvit-tiny-ft_clothing-32px.py
_base_ = ['./stvit-tiny_clothing-32px.py']

load_from = 'work_dirs/vit-tiny_cifar10/epoch_10.pth'

optim_wrapper = dict(optimizer=dict(lr=5e-4))

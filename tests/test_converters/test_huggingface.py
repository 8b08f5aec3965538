"""Files in the names of Hugging Face's transformers, whose own networks are the references."""

import pytest
from vits import IMAGE, PLAIN, close, model_of, randomise

from mmstvit.models import STViT

RAW = {**PLAIN, 'out_type': 'raw'}
HF_SIZES = dict(
    image_size=32, patch_size=4, hidden_size=16, num_hidden_layers=6, num_attention_heads=2, layer_norm_eps=1e-6
)


@pytest.fixture(params=['file', 'modules'])
def transformers_vit(request, tmp_path):
    """A network of ``transformers`` and its weights, in the names of its files or of its modules."""
    transformers = pytest.importorskip('transformers')
    from safetensors.torch import load_file

    def make(kind, config, **options):
        config = getattr(transformers, config)(**HF_SIZES, **options)
        theirs = randomise(getattr(transformers, kind)(config))
        theirs.save_pretrained(tmp_path)
        return theirs, load_file(tmp_path / 'model.safetensors') if request.param == 'file' else theirs.state_dict()

    return make


@pytest.mark.parametrize(
    'kind,config,options,ours',
    [
        ('ViTModel', 'ViTConfig', dict(intermediate_size=32), dict()),
        ('ViTModel', 'ViTConfig', dict(intermediate_size=32, qkv_bias=False), dict(qkv_bias=False)),
        ('DeiTModel', 'DeiTConfig', dict(intermediate_size=32), dict(num_register_tokens=1)),
        ('Dinov2Model', 'Dinov2Config', dict(mlp_ratio=2), dict(layer_scale_init_value=1.0)),
        (
            'Dinov2WithRegistersModel',
            'Dinov2WithRegistersConfig',
            dict(mlp_ratio=2, num_register_tokens=3),
            dict(layer_scale_init_value=1.0, num_register_tokens=3),
        ),
    ],
)
def test_models_of_transformers(transformers_vit, kind, config, options, ours):
    theirs, state = transformers_vit(kind, config, **options)
    model = STViT(**RAW, **ours).eval()
    assert model.load_state_dict(state, strict=False).missing_keys == []
    assert close(model(IMAGE)[0], theirs(IMAGE).last_hidden_state)


@pytest.mark.parametrize('kind,config', [('ViTForImageClassification', 'ViTConfig')])
def test_classifier_of_transformers(transformers_vit, tmp_path, lines, kind, config):
    theirs, state = transformers_vit(kind, config, intermediate_size=32, num_labels=5)
    model = model_of(state, tmp_path)
    assert close(model(IMAGE), theirs(IMAGE).logits)
    assert '78 of 78' in lines[-1]


def test_gated_mlp_of_transformers_is_refused(transformers_vit):
    _, state = transformers_vit('Dinov2Model', 'Dinov2Config', use_swiglu_ffn=True)
    with pytest.raises(ValueError, match=r'mlp\.\w+\.weight in its layers'):
        STViT(**RAW, layer_scale_init_value=1.0).load_state_dict(state, strict=False)

import jax, jax.numpy as jnp
def load(d): return "not built"
def pack_f32(w): raise NotImplementedError
def pack_int8(w): raise NotImplementedError
def f32_product(x,p): raise NotImplementedError
def int8_product(x,p,s): raise NotImplementedError

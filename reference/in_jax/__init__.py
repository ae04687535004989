"""The exact hypergradient of tabular problems as a function of JAX: jitted, mapped over θ, on an accelerator."""

from bilevelrl.reference.in_jax.objective import JaxHypergradient, jax_hypergradient, jax_objective

__all__ = ["JaxHypergradient", "jax_hypergradient", "jax_objective"]

"""Thermal control of a building of zones: the leader insulates walls and opens airflow, two units heat and cool.

The state is the deviation of each zone's temperature from the wanted one. Zones form a ring; θ holds the logits of the
insulation of each zone and of the airflow through each wall between neighbours,

    α = sigmoid(θ_1..n),   b = sigmoid(θ_n+1..2n),   A_ij = (coupling)_ij b_wall,   A_ii = 1 + e_i (1 - α_i) - Σ_j A_ij.

The leader is paid `-Var(x) - ½ |a|² - 0.1 (|α|² + |b|²)` per step, with the population variance over the zones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference import ConfigurableLQR, LQRMatrices
from bilevelrl.reference.arrays import FloatArray, check_parameter, check_shape
from bilevelrl.reference.derivatives import sigmoid
from bilevelrl.reference.doors import Count, Deviation, check_count, checked
from bilevelrl.reference.storage import remade
from bilevelrl.tasks.registry import register_task

__all__ = ["Building", "building_thermal_control"]

_INSULATION_EFFECT = (0.04, 0.03, 0.06, 0.05)
_COMFORT = (8.0, 1.0, 5.0, 6.0)
# Wall i lies between zones i and i + 1: warming of the first by the second, and of the second by the first.
_COUPLING = ((0.05, 0.03), (0.04, 0.04), (0.06, 0.03), (0.05, 0.05))
# Units alternate between pairs of zones: (effect on the first, on the second zone of the pair).
_UNITS = ((0.1, 0.6), (0.55, 0.3))


def _cycle(values: Any, count: int) -> FloatArray:
    return np.array([values[i % len(values)] for i in range(count)])


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class Building:
    """The constants of a building: n zones on a ring, one unit for every two zones.

    Attributes
    ----------
    insulation_effect : (n,)
        e_i, the drift of a zone without insulation, per degree and step.
    coupling : (n, n, n)
        coupling[w, i, j]: how much open wall w lets zone j move zone i.
    unit_effect : (n, m)
        B, degrees per unit of heating power.
    """

    insulation_effect: FloatArray
    coupling: FloatArray
    unit_effect: FloatArray

    @classmethod
    @checked
    def of(cls, zones: Count) -> Building:
        """Return the building of n zones; four are the published one, others repeat its constants along the ring."""
        coupling = np.zeros((zones, zones, zones))
        for wall, (forth, back) in enumerate(_cycle(_COUPLING, zones)):
            near, far = wall, (wall + 1) % zones
            coupling[wall, near, far] += forth
            coupling[wall, far, near] += back
        effect = np.zeros((zones, (zones + 1) // 2))
        for zone in range(zones):
            effect[zone, zone // 2] = _UNITS[zone // 2 % 2][zone % 2]
        return cls(insulation_effect=_cycle(_INSULATION_EFFECT, zones), coupling=coupling, unit_effect=effect)

    @checked
    def dynamics(self, insulation: Any, airflow: Any) -> Any:
        """Return A, traceable: rows sum to 1 + e_i (1 - α_i)."""
        size = (len(self.insulation_effect),)
        insulation, airflow = (
            check_parameter("insulation", insulation, size),
            check_parameter("airflow", airflow, size),
        )
        across = anp.tensordot(airflow, self.coupling, axes=1)
        diagonal = 1.0 + self.insulation_effect * (1.0 - insulation) - anp.sum(across, axis=1)
        return across + diagonal[:, None] * np.eye(len(self.insulation_effect))

    @checked
    def dynamics_jacobian(self, insulation_slope: FloatArray, airflow_slope: FloatArray) -> FloatArray:
        """Return ∂A/∂θ, (n, n, 2n), given the slopes of the sigmoids."""
        zones = len(self.insulation_effect)
        check_shape("insulation_slope", insulation_slope, (zones,))
        check_shape("airflow_slope", airflow_slope, (zones,))
        moved = np.zeros((zones, zones, 2 * zones))
        zone = np.arange(zones)
        moved[zone, zone, zone] = -self.insulation_effect * insulation_slope
        across = np.moveaxis(self.coupling, 0, 2) * airflow_slope
        moved[:, :, zones:] = across
        moved[zone, zone, zones:] -= across.sum(axis=1)
        return moved


def _constant(values: Any) -> FloatArray:
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


@register_task("building_thermal_control", "an n-zone building: insulation and airflow against heating and cooling")
@remade
@checked
def building_thermal_control(
    *,
    zones: int = 4,
    noise: Deviation = 0.02,
    initial_spread: Deviation = 5.0,
    energy_weight: float = 0.5,
    effort_weight: float = 0.1,
    control_cost: float = 0.01,
    temperature: float = 0.1,
    discount_leader: float = 0.9,
    discount_follower: float = 0.9,
) -> ConfigurableLQR:
    """Return the thermal control of a building (arXiv:2603.14867, experiments on the n-zone building).

    θ, of 2n entries, holds logits: insulation of the zones first, then airflow of the walls, wall i between the zones i
    and i + 1 on a ring. θ = 0 is half insulated and half open.

    Parameters
    ----------
    zones
        n ≥ 3; 4 zones with 2 units are the published building.
    noise
        Standard deviation of the disturbance of each zone in one step, degrees.
    initial_spread
        Standard deviation of each zone's first deviation, degrees.
    energy_weight, effort_weight
        What the leader pays per step for |a|², and for |α|² + |b|².
    control_cost
        R = control_cost · I of the follower.
    temperature, discount_leader, discount_follower
        β, γ_L and γ_F.

    Raises
    ------
    InvalidInputError
        If a number is out of range.

    Examples
    --------
    >>> from bilevelrl.reference import leader_objective
    >>> round(leader_objective(building_thermal_control(), np.zeros(8)), 4)
    -261.9631
    """
    check_count("zones", zones, minimum=3)
    building = Building.of(zones)
    units = building.unit_effect.shape[1]
    identity = np.eye(zones)
    constants = {
        "dynamics_action": _constant(building.unit_effect),
        "noise_covariance": _constant(noise**2 * identity),
        "cost_state_follower": _constant(np.diag(_cycle(_COMFORT, zones))),
        "cost_action_follower": _constant(control_cost * np.eye(units)),
        "cost_state_leader": _constant((identity - 1.0 / zones) / zones),
        "cost_action_leader": _constant(energy_weight * np.eye(units)),
        "initial_mean": _constant(np.zeros(zones)),
        "initial_covariance": _constant(initial_spread**2 * identity),
    }

    def matrices(theta: Any) -> LQRMatrices:
        shares = sigmoid(theta)
        return LQRMatrices(
            dynamics_state=building.dynamics(shares[:zones], shares[zones:]),
            cost_constant_leader=effort_weight * anp.sum(shares**2),
            **constants,
        )

    def jacobian(theta: FloatArray) -> dict[str, FloatArray]:
        shares = np.asarray(sigmoid(theta))
        slope = shares * (1.0 - shares)
        return {
            "dynamics_state": building.dynamics_jacobian(slope[:zones], slope[zones:]),
            "cost_constant_leader": 2.0 * effort_weight * shares * slope,
        }

    return ConfigurableLQR(
        matrices=matrices,
        matrices_jacobian=jacobian,
        discount_leader=discount_leader,
        discount_follower=discount_follower,
        temperature=temperature,
        theta_shape=(2 * zones,),
        name=f"building_thermal_control(zones={zones})",
    )

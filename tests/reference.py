"""Every model once more in its textbook form, and a cell to learn: plain loops over numbers in double precision.

Nothing here shares code with the package. A model's parameters are read from its arrays, its steps are written out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import asinh, exp, tanh
from typing import Any

import numpy as np

from celltwin.data.record import Cell, Record

# --- tables ------------------------------------------------------------------------------------------------------


def reciprocal(celsius: Any) -> Any:
    """-1000/T: what Arrhenius' law is linear in."""
    return -1000.0 / (np.asarray(celsius, float) + 273.15)


def along_temperature(table: Any, temperature: float, nodes: Any, reach: float = 0.0) -> float:
    """Linear in -1000/T, and straight on below the coldest node for as many kelvins as `reach`."""
    axis, table = reciprocal(nodes), np.asarray(table, float)
    value = float(np.interp(reciprocal(temperature), axis, table))
    if reach and len(nodes) > 1 and temperature < nodes[0]:
        further = reciprocal(max(temperature, nodes[0] - reach)) - axis[0]
        value += float(further * (table[1] - table[0]) / (axis[1] - axis[0]))
    return value


def surface(table: Any, soc: float, temperature: float, soc_nodes: Any, temperatures: Any, reach: float = 0.0) -> float:
    """Bilinear interpolation of table [soc nodes, temperatures], linear in soc and in -1000/T."""
    columns = [np.interp(soc, soc_nodes, column) for column in np.asarray(table, float).T]
    return along_temperature(columns, temperature, temperatures, reach)


def ocv(curve: Any, soc: float, temperature: float) -> float:
    level = float(np.interp(soc, curve.nodes, np.asarray(curve.table, float)))
    return 0.05 * (level + surface(curve.drift, soc, temperature, curve.drift_nodes, curve.temperatures))


# --- what all models share -----------------------------------------------------------------------------------------


def count(record: Record) -> list[float]:
    """Coulomb counting: state of charge after each sample."""
    assert record.cell is not None
    soc, out = record.initial_soc, []
    for current, dt in zip(record.current, record.dt, strict=True):
        soc += current * dt / (3600.0 * record.cell.reference_capacity_ah)
        out.append(soc)
    return out


def samples(record: Record) -> Iterator[tuple[float, float, float, float]]:
    """Current, temperature, dt and counted state of charge of each sample."""
    return zip(record.current, record.filled_temperature, record.dt, count(record), strict=True)


def scaled(domain: Any, channel: int, value: float) -> float:
    """In standard deviations from the mean: channel 0 is current, 1 temperature, 2 state of charge."""
    return (value - float(domain.mean[channel])) / float(domain.std[channel])


def outside(domain: Any, channel: int, value: float) -> float:
    low, high = float(domain.low[channel]), float(domain.high[channel])
    span = max(high - low, 1e-3 + 1e-3 * abs(high))
    return max(max(low - value, value - high) / span - 0.05, 0.0)


def leak(memory: Any, value: float, dt: float, time_constants: Any) -> np.ndarray:
    return np.array(
        [exp(-dt / t) * m + (1 - exp(-dt / t)) * value for m, t in zip(memory, time_constants, strict=True)]
    )


def affine(layer: Any, x: Any) -> np.ndarray:
    return np.asarray(layer.weight, float) @ np.asarray(x, float) + np.asarray(layer.bias, float)


def mlp(network: Any, x: Any) -> np.ndarray:
    for layer in network.layers[:-1]:
        x = np.tanh(affine(layer, x))
    return affine(network.layers[-1], x)


def hats(x: float, nodes: Any) -> list[float]:
    return [float(np.interp(x, nodes, row)) for row in np.eye(len(nodes))]


def sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


MEMORIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
FEATURES = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0)

# --- models --------------------------------------------------------------------------------------------------------


def hold(model: Any, record: Record) -> np.ndarray:
    return np.full(len(record), record.voltage[0])


def ohmic_voltage(model: Any, soc: float, temperature: float, current: float) -> float:
    resistance = exp(along_temperature(model.log_resistance, temperature, model.temperatures, model.cold_reach))
    return ocv(model.ocv, soc, temperature) + resistance * current


def ohmic(model: Any, record: Record) -> np.ndarray:
    return np.array([ohmic_voltage(model, soc, t, i) for i, t, _, soc in samples(record)])


def thevenin_steps(model: Any, record: Record, adjusted: Any = None) -> Iterator[tuple[float, np.ndarray]]:
    """Terminal voltage and the overpotential of each RC pair, sample by sample.

    `adjusted`: for each sample, what resistances and then time constants are multiplied by, and what moves the curve.
    """
    assert record.cell is not None
    pairs, capacity = len(model.log_tau), record.cell.reference_capacity_ah

    def positive(tables: Any, soc: float, temperature: float) -> list[float]:
        """Tables of logarithms [soc nodes or 1, temperatures] read at one state of charge."""
        nodes = model.soc_nodes[: tables.shape[1]]
        return [exp(surface(table, soc, temperature, nodes, model.temperatures, model.cold_reach)) for table in tables]

    def gaps(soc: float) -> np.ndarray:
        side = model.hysteresis
        softplus = np.log1p(np.exp(np.asarray(side.raw_gap, float)))
        return np.array([0.01 * np.interp(soc, side.soc_nodes, row) for row in softplus])

    i0, t0, soc0 = record.current[0], record.filled_temperature[0], record.initial_soc
    excess = record.voltage[0] - ocv(model.ocv, soc0, t0) - positive(model.log_resistance, soc0, t0)[0] * i0
    rested = 1.0 / (1.0 + (20.0 * i0 / capacity) ** 2)
    shift, h = 0.0, np.zeros(0)
    if model.wake is not None:
        gain, offset = (along_temperature(row, t0, model.temperatures) for row in (model.wake.gain, model.wake.offset))
        beyond = excess - 0.1 * offset
        if model.wake.usual:
            beyond = max(beyond, 0.0) + min(excess, 0.0) if offset > 0 else min(beyond, 0.0) + max(excess, 0.0)
            slope = (ocv(model.ocv, soc0, t0) - ocv(model.ocv, soc0 - 0.03, t0)) / 0.03
            gain = min(gain, 0.8 / max(slope, 0.1))
        shift = min(max(rested * gain * beyond, -0.03), 0.03)
    if model.hysteresis is not None:
        h = gaps(soc0) * min(max(rested * excess / (gaps(soc0).sum() + 1e-6), -1.0), 1.0)
    v, core = np.zeros(pairs), 0.0
    many = len(model.log_resistance)
    if adjusted is None:
        adjusted = np.tile([*np.ones(many + pairs), 0.0], (len(record), 1))
    for (current, temperature, dt, soc), (*times, beside) in zip(samples(record), adjusted, strict=True):
        if model.core is not None:
            log_rise = along_temperature(model.core.log_rise, temperature, model.temperatures, model.cold_reach)
            rise = exp(log_rise) * current**2
            a = exp(-dt / exp(float(model.core.log_time)))
            core = a * core + (1 - a) * min(rise, 30.0)
        r0, *rs = np.multiply(times[:many], positive(model.log_resistance, soc, temperature + core))
        drives = [r * current for r in rs]
        if model.log_scale is not None:
            s = exp(along_temperature(model.log_scale, temperature + core, model.temperatures, model.cold_reach))
            drives[0], drives[-1] = s * asinh(drives[0] / s), s * asinh(drives[-1] / s)  # R1 and Rct
        for k, tau in enumerate(np.multiply(times[many:], positive(model.log_tau, soc, temperature + core))):
            v[k] = exp(-dt / tau) * v[k] + (1 - exp(-dt / tau)) * drives[k]
        if model.hysteresis is not None:
            a = np.exp(-np.exp(np.asarray(model.hysteresis.log_rate, float)) * abs(current) * dt / (3600 * capacity))
            h = a * h + (1 - a) * np.sign(current) * gaps(soc)
        yield (
            ocv(model.ocv, soc + shift + beside, temperature) + h.sum() + r0 * current + sum(drives[pairs:]) + v.sum(),
            v.copy(),
        )


def thevenin(model: Any, record: Record) -> np.ndarray:
    return np.array([voltage for voltage, _ in thevenin_steps(model, record)])


def stops(gaps: Any, radii: Any, nodes: Any, start: Any, passed: Any, soc: Any) -> tuple[np.ndarray, list[float]]:
    """Positions at the end and the voltage after each step of charge: Prandtl's stops, one after the other."""
    position, out = [float(z) for z in start], []
    for charge, at in zip(passed, soc, strict=True):
        volts = 0.0
        for m, radius in enumerate(radii):
            elastic = position[m] * radius + charge
            position[m] = max(-radius, min(radius, elastic)) / radius
            volts += position[m] * float(np.interp(at, nodes, gaps[m]))
        out.append(volts)
    return np.array(position), out


def thevenin_hysteresis(model: Any, record: Record) -> np.ndarray:
    """The circuit, and stops beside it."""
    assert record.cell is not None
    circuit, side, capacity = model.circuit, model.stops, 3600.0 * record.cell.reference_capacity_ah
    gaps = 0.01 * np.log1p(np.exp(np.asarray(side.raw_gap, float)))
    i0, t0, soc0 = record.current[0], record.filled_temperature[0], record.initial_soc
    nodes = circuit.soc_nodes, circuit.temperatures, circuit.cold_reach
    excess = (
        record.voltage[0] - ocv(circuit.ocv, soc0, t0) - exp(surface(circuit.log_resistance[0], soc0, t0, *nodes)) * i0
    )
    excess /= 1.0 + (20.0 * i0 * 3600.0 / capacity) ** 2
    share = min(max(excess / (sum(np.interp(soc0, side.soc_nodes, row) for row in gaps) + 1e-6), -1.0), 1.0)
    passed = record.current * record.dt / capacity
    radii, start = np.exp(np.asarray(side.log_radius, float)), np.full(len(gaps), share)
    hysteresis = stops(gaps, radii, side.soc_nodes, start, passed, count(record))[1]
    return thevenin(circuit, record) + hysteresis


def narx(model: Any, record: Record) -> np.ndarray:
    i0, t0 = record.current[0], record.filled_temperature[0]
    excess = (record.voltage[0] - ohmic_voltage(model.static, record.initial_soc, t0, i0)) / 0.1
    voltages, currents = np.full(7, min(max(excess, -3.0), 3.0)), np.zeros(7)
    out = []
    for current, temperature, dt, soc in samples(record):
        i, t = scaled(model.domain, 0, current), scaled(model.domain, 1, temperature)
        currents = leak(currents, i, dt, MEMORIES)
        e = mlp(model.network, np.array([*voltages, *currents, *hats(soc, FEATURES), i, t]))[0]
        voltages = leak(voltages, e, dt, MEMORIES)
        out.append(ohmic_voltage(model.static, soc, temperature, current) + 0.1 * e)
    return np.array(out)


def lively(model: Any, record: Record) -> Iterator[float]:
    """By how much a load moves about its running mean, beside the training's least: 1 as much, 0 half of it."""
    mean, ripple, least, rest = 0.0, 0.0, float(model.ripple.least), float(model.ripple.rest)
    for current, _, dt, _ in samples(record):
        a = exp(-dt / 60.0)
        mean = a * mean + (1 - a) * current
        ripple = a * ripple + (1 - a) * abs(current - mean)
        yield min(max(2 * (ripple + rest) / (least * abs(mean) + rest) - 1, 0.0), 1.0)


def hybrid(model: Any, record: Record) -> np.ndarray:
    """Both residuals: the NARX remembers what it corrected, the GRU has a state of its own."""
    circuit, domain, residual = model.base.circuit, model.domain, model.residual
    recurrent = hasattr(residual, "candidate")
    memory, currents = np.zeros(len(residual.readout.weight[0]) if recurrent else 7), np.zeros(7)
    out = []
    steps = zip(samples(record), thevenin_steps(circuit, record), lively(model, record), strict=True)
    for (current, temperature, dt, soc), (voltage, pairs), trust in steps:
        i, t = scaled(domain, 0, current), scaled(domain, 1, temperature)
        currents = leak(currents, i, dt, MEMORIES)
        over = voltage - ocv(circuit.ocv, soc, temperature)
        x = np.array([*currents, *hats(soc, FEATURES), i, t, over / 0.1, *(pairs / 0.1)])
        if recurrent:
            z, r = np.split(sigmoid(affine(residual.gates, [*x, *memory])), 2)
            n = np.tanh(affine(residual.candidate, [*x, *(r * memory)]))
            held = z ** (dt / residual.period)
            memory = held * memory + (1 - held) * n
            proposed = affine(residual.readout, memory)[0]
        else:
            proposed = mlp(residual.network, np.array([*memory, *x]))[0]
        away = outside(domain, 0, current) + outside(domain, 1, temperature) + outside(domain, 2, soc)
        e = trust * min(max(1 - 10 * away, 0.0), 1.0) * 10.0 * tanh(proposed / 10.0)
        if not recurrent:
            memory = leak(memory, e, dt, MEMORIES)
        out.append(voltage + 0.03 * e)
    return np.array(out)


def circuit_neural(model: Any, record: Record) -> np.ndarray:
    domain, currents, loads = model.domain, np.zeros(7), np.zeros(3)
    slowest, adjusted = len(model.base.circuit.log_tau), []
    for (current, temperature, dt, soc), trust in zip(samples(record), lively(model, record), strict=True):
        i = current / float(domain.std[0])
        currents, loads = leak(currents, i, dt, MEMORIES), leak(loads, abs(i), dt, (30.0, 300.0, 3000.0))
        static = [*hats(soc, FEATURES), scaled(domain, 1, temperature)]
        away = outside(domain, 0, current) + outside(domain, 1, temperature) + outside(domain, 2, soc)
        trust *= min(max(1 - 10 * away, 0.0), 1.0)
        factors = np.exp(trust * np.tanh(mlp(model.network, np.array([*static, i, *currents, *loads]))))
        factors = [*factors[:slowest], 1.0, *factors[slowest:], 1.0]  # its resistance, and its time constant at the end
        adjusted.append([*factors, trust * 0.02 * tanh(mlp(model.curve, np.array(static))[0])])
    return np.array([voltage for voltage, _ in thevenin_steps(model.base.circuit, record, adjusted)])


def lstm(model: Any, record: Record) -> np.ndarray:
    domain = model.domain
    i0, t0, soc0 = record.current[0], record.filled_temperature[0], record.initial_soc
    excess = (record.voltage[0] - ohmic_voltage(model.static, soc0, t0, i0)) / 0.1
    shown = [min(max(excess, -3.0), 3.0), scaled(domain, 0, i0), scaled(domain, 1, t0), scaled(domain, 2, soc0)]
    h, c = np.split(mlp(model.wake, np.array(shown)), 2)
    h = np.tanh(h)
    out = []
    for current, temperature, dt, soc in samples(record):
        x = np.array([scaled(domain, 0, current), scaled(domain, 1, temperature), *hats(soc, FEATURES), *h])
        f, i, o, g = np.split(affine(model.gates, x), 4)
        f, i, o, g = sigmoid(f) * exp(-1e-6), sigmoid(i), sigmoid(o), np.tanh(g)
        held = f ** (dt / model.period)
        c = held * c + (1 - held) / (1 - f) * i * g
        h = o * np.tanh(c)
        out.append(ohmic_voltage(model.static, soc, temperature, current) + 0.1 * affine(model.readout, h)[0])
    return np.array(out)


def bells(x: float, centres: Any) -> np.ndarray:
    """Gaussians around centres, 0.7 of the distance to their neighbours wide, scaled to sum to one."""
    x = min(max(x, centres[0]), centres[-1])
    heights = np.exp(-0.5 * ((x - np.array(centres)) / (0.7 * np.gradient(centres))) ** 2)
    return heights / heights.sum()


def edmd(model: Any, record: Record) -> np.ndarray:
    assert record.cell is not None
    capacity, i0, t0 = record.cell.reference_capacity_ah, record.current[0], record.filled_temperature[0]
    excess = (record.voltage[0] - ohmic_voltage(model.static, record.initial_soc, t0, i0)) / 0.1
    excess = min(max(excess, -3.0), 3.0)
    slow = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
    linear, bent, warm = np.zeros(7), np.zeros(7), np.zeros(2)
    first = np.full(2, excess)
    out = []
    for current, temperature, dt, soc in samples(record):
        rate = current / capacity
        linear, bent = leak(linear, rate, dt, slow), leak(bent, asinh(rate / 0.2), dt, slow)
        warm = leak(warm, rate**2, dt, (300.0, 1000.0))
        first = leak(first, 0.0, dt, (30.0, 300.0))
        seen = np.array([1.0, rate, asinh(rate / 0.2), *linear, *bent, *warm, *first])
        charged = bells(soc, model.soc_centres)
        warmed = bells(reciprocal(temperature), reciprocal(model.temperatures))
        e = np.outer(charged, warmed).ravel() @ np.asarray(model.readout, float) @ seen
        out.append(ohmic_voltage(model.static, soc, temperature, current) + 0.1 * e)
    return np.array(out)


def wake(model: Any, record: Record, network: Any = None) -> np.ndarray:
    """What a recurrent network makes of the start."""
    i0, t0, soc0 = record.current[0], record.filled_temperature[0], record.initial_soc
    excess = (record.voltage[0] - ohmic_voltage(model.static, soc0, t0, i0)) / 0.1
    at = [scaled(model.domain, channel, value) for channel, value in enumerate((i0, t0, soc0))]
    return mlp(network or model.wake, np.array([min(max(excess, -3.0), 3.0), *at]))


def gru(model: Any, record: Record) -> np.ndarray:
    cell, h = model.cell, np.tanh(wake(model, record))
    out = []
    for current, temperature, dt, soc in samples(record):
        x = np.array([scaled(model.domain, 0, current), scaled(model.domain, 1, temperature), *hats(soc, FEATURES)])
        z, r = np.split(sigmoid(affine(cell.gates, [*x, *h])), 2)
        n = np.tanh(affine(cell.candidate, [*x, *(r * h)]))
        held = z ** (dt / cell.period)
        h = held * h + (1 - held) * n
        out.append(ohmic_voltage(model.static, soc, temperature, current) + 0.1 * affine(cell.readout, h)[0])
    return np.array(out)


def subnet(model: Any, record: Record) -> np.ndarray:
    x, tau = np.tanh(wake(model, record, model.encoder)), np.exp(np.asarray(model.log_tau, float))
    out = []
    for current, temperature, dt, soc in samples(record):
        u = [scaled(model.domain, 0, current), scaled(model.domain, 1, temperature), *hats(soc, FEATURES)]
        f = np.tanh(mlp(model.derivative, np.array([*x, *u])))
        x = x + (1 - np.exp(-dt / tau)) * (f - x)
        e = mlp(model.readout, np.array([*x, *u]))[0]
        out.append(ohmic_voltage(model.static, soc, temperature, current) + 0.1 * e)
    return np.array(out)


def koopman(model: Any, record: Record) -> np.ndarray:
    z = wake(model, record)
    out = []
    for current, temperature, dt, soc in samples(record):
        x = np.array([scaled(model.domain, 0, current), scaled(model.domain, 1, temperature), *hats(soc, FEATURES)])
        colder = reciprocal(25.0) - reciprocal(temperature)
        tau = np.exp(np.asarray(model.log_tau, float) + np.asarray(model.activation, float) * colder)
        z = np.exp(-dt / tau) * z + (1 - np.exp(-dt / tau)) * mlp(model.lift, x)
        e = mlp(model.readout, np.array([*z, *x]))[0]
        out.append(ohmic_voltage(model.static, soc, temperature, current) + 0.1 * e)
    return np.array(out)


def narx_poly(model: Any, record: Record) -> np.ndarray:
    """The terms are read as the names that the equation prints them with."""
    assert record.cell is not None
    capacity, i0, t0 = record.cell.reference_capacity_ah, record.current[0], record.filled_temperature[0]
    excess = (record.voltage[0] - ohmic_voltage(model.static, record.initial_soc, t0, i0)) / 0.1
    names = [line.split()[1:] for line in model.equation().split("e = ")[1].splitlines()]
    rates, bent, past = np.zeros(4), np.zeros(3), np.full(2, min(max(excess, -3.0), 3.0))
    out = []
    for current, temperature, dt, soc in samples(record):
        i, a = current / capacity, asinh(current / capacity / 0.2)
        rates, bent = leak(rates, i, dt, (3.0, 30.0, 300.0, 3000.0)), leak(bent, a, dt, (10.0, 100.0, 1000.0))
        c = 1000 / (temperature + 273.15) - 1000 / 298.15
        value = {"1": 1.0, "i": i, "a": a, "s": soc, "s^2": soc**2, "s^3": soc**3, "c": c, "c^2": c * c}
        value |= {"l": exp(-10 * soc)} | dict(zip(("i~3s", "i~30s", "i~300s", "i~3000s"), rates, strict=True))
        value |= dict(zip(("a~10s", "a~100s", "a~1000s"), bent, strict=True))
        value |= dict(zip(("e~30s", "e~300s"), past, strict=True))
        products = [float(np.prod([value[factor] for factor in name])) for name in names]
        e = float(np.asarray(model.weights, float) @ products)
        past = leak(past, min(max(e, -5.0), 5.0), dt, (30.0, 300.0))
        out.append(ohmic_voltage(model.static, soc, temperature, current) + 0.1 * e)
    return np.array(out)


MODELS: Mapping[str, Any] = {
    "hold": hold,
    "ohmic": ohmic,
    "thevenin": thevenin,
    "thevenin-hysteresis": thevenin_hysteresis,
    "narx": narx,
    "hybrid": hybrid,
    "hybrid-gru": hybrid,
    "lstm": lstm,
    "edmd": edmd,
    "narx-poly": narx_poly,
    "koopman": koopman,
    "gru": gru,
    "subnet": subnet,
    "circuit-neural": circuit_neural,
}

# --- a cell to learn -------------------------------------------------------------------------------------------------

CELL = Cell("simulated", 1.0, (2.5, 4.3), 1.0, "none")


@dataclass(frozen=True)
class Circuit:
    """A cell of known parameters: a straight OCV that bends at its low end, R0 and two linear RC pairs."""

    r0: float = 0.05  # ohm at 25 degC, like the others
    r: tuple[float, float] = (0.02, 0.03)
    tau: tuple[float, float] = (5.0, 60.0)  # s
    activation: float = 2.5  # in units of 1000 K

    def ocv(self, soc: float) -> float:
        return 3.3 + 0.8 * soc - 0.3 * exp(-soc / 0.05)

    def factor(self, temperature: float) -> float:
        """By how much more it resists than at 25 degC."""
        return exp(self.activation * (reciprocal(25.0) - reciprocal(temperature)))

    def voltage(self, current: Any, temperature: Any, dt: Any, soc: float, capacity: float) -> np.ndarray:
        v, out = [0.0, 0.0], []
        for i, t, step in zip(current, temperature, dt, strict=True):
            soc += i * step / (3600.0 * capacity)
            k = self.factor(t)
            for n in range(2):
                keep = exp(-step / self.tau[n])
                v[n] = keep * v[n] + (1 - keep) * self.r[n] * k * i
            out.append(self.ocv(soc) + self.r0 * k * i + sum(v))
        return np.array(out)


def drive(
    name: str,
    *,
    seed: int,
    ambient: float = 25.0,
    samples: int = 800,
    period: float = 2.0,
    noise: float = 1e-3,
    cell: Cell = CELL,
    soc: float = 1.0,
    circuit: Circuit | None = None,
    group: str = "",
) -> Record:
    """A drive cycle of that cell: a rest, then random loads of 2 to 20 s that average 1.2C, charge among them."""
    draw = np.random.default_rng(seed)
    levels = np.clip(draw.normal(-1.2, 1.2, samples), -4.0, 1.0)
    current = np.repeat(levels, draw.integers(1, 10, samples))[:samples] * cell.reference_capacity_ah
    current[:5] = 0.0
    current[samples // 2 : samples // 2 + 40] = 0.0
    time = period * np.arange(samples)
    temperature = ambient + 2.0 * (1 - np.exp(-time / 600.0))
    dt = np.diff(time, prepend=0.0)
    voltage = (circuit or Circuit()).voltage(current, temperature, dt, soc, cell.reference_capacity_ah)
    charge = np.cumsum(current * dt) / 3600.0
    return Record(
        name,
        time,
        voltage + noise * draw.normal(size=samples),
        current,
        temperature,
        charge,
        ambient,
        cell,
        soc,
        group,
    )


# --- packs -------------------------------------------------------------------------------------------------------


def pack(circuit: Any, netlist: Any, capacity: Any, factor: Any, soc: Any, current: Any) -> tuple[np.ndarray, ...]:
    """Voltages and currents of cells [time, cells] and the pack's voltage [time] at 25 degC and 1 s, by nodal analysis.

    A loop over samples, Newton iterations and cells; a dense system of node potentials and cell currents in each.
    """
    number = {int(node): i for i, node in enumerate(np.unique(np.r_[netlist.resistors.ravel(), netlist.cells.ravel()]))}
    nodes, cells = len(number), len(netlist.cells)
    ground = number[netlist.terminals[1]]
    fixed = np.zeros((nodes + cells, nodes + cells))
    for (a, b), ohm in zip(netlist.resistors, netlist.resistance, strict=True):
        i, j = number[int(a)], number[int(b)]
        fixed[[i, j], [i, j]] += 1.0 / ohm
        fixed[[i, j], [j, i]] -= 1.0 / ohm
    for k, (a, b) in enumerate(netlist.cells):
        fixed[number[int(a)], nodes + k] += 1.0  # current flows out of the positive node, into the cell
        fixed[number[int(b)], nodes + k] -= 1.0
        fixed[nodes + k, number[int(a)]] += 1.0
        fixed[nodes + k, number[int(b)]] -= 1.0
    fixed[ground] = 0.0
    fixed[ground, ground] = 1.0

    soc, pairs = np.array(soc, float), np.zeros((cells, circuit.pairs))
    out: tuple[list, list, list] = ([], [], [])
    now = np.zeros(cells)
    for drive in current:
        for _ in range(12):
            voltage, slope = np.zeros(cells), np.zeros(cells)
            for k in range(cells):
                voltage[k] = _cell(circuit, soc[k], pairs[k], factor[k], capacity[k], now[k])[0]
                nudged = _cell(circuit, soc[k], pairs[k], factor[k], capacity[k], now[k] + 1e-4)[0]
                slope[k] = (nudged - voltage[k]) / 1e-4
            system, right = fixed.copy(), np.zeros(nodes + cells)
            for k in range(cells):
                system[nodes + k, nodes + k] -= slope[k] + netlist.series[k]
                right[nodes + k] = voltage[k] - slope[k] * now[k]
            right[number[netlist.terminals[0]]] += drive
            solution = np.linalg.solve(system, right)
            now = solution[nodes:]
        steps = [_cell(circuit, soc[k], pairs[k], factor[k], capacity[k], now[k]) for k in range(cells)]
        soc, pairs = np.array([s[1] for s in steps]), np.array([s[2] for s in steps])
        out[0].append([s[0] for s in steps])
        out[1].append(now)
        out[2].append(solution[number[netlist.terminals[0]]])
    return tuple(np.array(x) for x in out)


def _cell(circuit: Any, soc: float, pairs: Any, factor: float, capacity: float, current: float) -> tuple:
    """Voltage, state of charge and overpotentials of a cell after a second at 25 degC, a node of the tables."""
    warm = int(np.argmin(np.abs(circuit.temperatures - 25.0)))
    soc = soc + current / 3600.0 / capacity

    def read(table: Any) -> float:
        return exp(np.interp(soc, circuit.soc, np.log(table[:, warm])))

    scale = None if circuit.transfer_scale is None else circuit.transfer_scale[warm]
    after = []
    for n in range(circuit.pairs):
        drive = read(circuit.r[n]) * factor * current
        if n == 0 and scale is not None:
            drive = scale * asinh(drive / scale)
        keep = exp(-1.0 / read(circuit.tau[n]))
        after.append(keep * pairs[n] + (1.0 - keep) * drive)
    voltage = np.interp(soc, circuit.ocv_soc, circuit.ocv[:, warm]) + read(circuit.r0) * factor * current + sum(after)
    if scale is not None:
        voltage += scale * asinh(read(circuit.transfer_resistance) * factor * current / scale)
    return voltage, soc, after


def excess(drop, surprise, dt, weight):
    """By what share a cell drops more than its circuit, by recursive least squares on swings about trailing means."""
    share, variance, silent, low, high = 0.0, 0.2**2, np.inf, 0.0, 0.0
    for k in range(len(drop)):
        variance = min(variance + 3e-3**2 * dt[k], 0.2**2)
        silent += dt[k]
        if weight[k] == 0.0:
            continue
        kept, silent = np.exp(-silent / 60.0), 0.0
        low, high = kept * low + (1 - kept) * drop[k], kept * high + (1 - kept) * surprise[k]
        x, y = drop[k] - low, surprise[k] - high
        noise = 0.03**2 + (0.5 * x) ** 2
        gain = weight[k] * x * variance / (weight[k] * x**2 * variance + noise)
        share = min(max(share + gain * min(max(y - share * x, -0.1), 0.1), -0.6), 1.5)
        variance = variance * noise / (weight[k] * x**2 * variance + noise)
    return share

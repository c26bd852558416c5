"""The published recursions again, in NumPy float64, one matrix at a time: the oracle of the parity tests.

Written from the equations (arXiv 2411.10438, 2510.21800, 2502.16982, 2601.14603; Jordan 2024), without marslora's code.
"""

import numpy as np


def newton_schulz(matrix, eps=1e-7, steps=5):
    a, b, c = 3.4445, -4.7750, 2.0315
    y = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    y = y / (np.linalg.norm(y) + eps)
    for _ in range(steps):
        gram = y @ y.T
        y = a * y + (b * gram + c * gram @ gram) @ y
    return y.T if matrix.shape[0] > matrix.shape[1] else y


def match_rms(matrix):
    return 0.2 * np.sqrt(max(matrix.shape))


def original(matrix):
    return np.sqrt(max(1, matrix.shape[0] / matrix.shape[1]))


def polar(matrix, eps=None):
    u, _, vt = np.linalg.svd(matrix, full_matrices=False)
    return u @ vt


def adamw(x, grads, lr, wd=0.0, betas=(0.9, 0.999), eps=1e-8, early_eps=False):
    m, v = np.zeros_like(x), np.zeros_like(x)
    b1, b2 = betas
    for t, g in enumerate(grads, 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        x = x * (1 - lr * wd)
        if early_eps:
            x = x - lr * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + eps)
        else:
            x = x - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return x


def muon(x, grads, lr, wd=0.0, beta=0.95, nesterov=True, orthogonal=newton_schulz):
    """Jordan's: an average of gradients, looked ahead by a second average."""
    m = np.zeros_like(x)
    for g in grads:
        m = beta * m + (1 - beta) * g
        u = (1 - beta) * g + beta * m if nesterov else m
        x = x * (1 - lr * wd) - lr * original(x) * orthogonal(u)
    return x


def moonlight(x, grads, lr, wd=0.0, beta=0.95, nesterov=True):
    """Moonlight's: a sum of gradients."""
    b = np.zeros_like(x)
    for g in grads:
        b = beta * b + g
        x = x * (1 - lr * wd) - lr * match_rms(x) * newton_schulz(g + beta * b if nesterov else b)
    return x


def momenta(grads, earlier, beta, gamma, clip, first):
    """The MARS recursion: yields (t, m, c). ``earlier[t]`` is L of step t; the first L is 0 or (paper) g itself."""
    m = np.zeros_like(grads[0])
    for t, (g, last) in enumerate(zip(grads, earlier, strict=True), 1):
        if t == 1:
            last = g if first == "paper" else np.zeros_like(g)
        c = g + gamma * beta / (1 - beta) * (g - last)
        if clip is not None and np.linalg.norm(c) > clip:
            c = c / np.linalg.norm(c) * clip
        m = beta * m + (1 - beta) * c
        yield t, m, c


def previous(grads):
    return [np.zeros_like(grads[0]), *grads[:-1]]


def mars_m(x, grads, lr, wd=0.0, beta=0.95, gamma=0.025, clip=1.0, first="paper", orthogonal=newton_schulz):
    for _, m, _ in momenta(grads, previous(grads), beta, gamma, clip, first):
        x = x * (1 - lr * wd) - lr * match_rms(x) * orthogonal(m)
    return x


def mars_m_exact(x, gradient, num_steps, lr, beta=0.95, gamma=0.025, clip=1.0, first="paper", eps=1e-7):
    """``gradient(x, t)`` of batch t at any point."""
    m, before = np.zeros_like(x), x
    for t in range(num_steps):
        g, last = gradient(x, t), gradient(before, t)
        if t == 0 and first == "reference":
            last = np.zeros_like(x)
        c = g + gamma * beta / (1 - beta) * (g - last)
        if clip is not None and np.linalg.norm(c) > clip:
            c = c / np.linalg.norm(c) * clip
        m = beta * m + (1 - beta) * c
        before, x = x, x - lr * match_rms(x) * newton_schulz(m, eps)
    return x


def storm(x, gradient, num_steps, lr, beta=0.95):
    """STORM's estimator ``m = g + beta (m - g_before)``, first m = (1 - beta) g; then the orthogonal factor."""
    before, m = x, None
    for t in range(num_steps):
        g = gradient(x, t)
        m = (1 - beta) * g if m is None else beta * (m - gradient(before, t)) + g
        before, x = x, x - lr * match_rms(x) * newton_schulz(m / (1 - beta))
    return x


def mars_adamw(x, grads, lr, wd=0.0, betas=(0.95, 0.99), gamma=0.025, clip=1.0, eps=1e-8, first="paper"):
    v = np.zeros_like(x)
    b1, b2 = betas
    for t, m, c in momenta(grads, previous(grads), b1, gamma, clip, first):
        v = b2 * v + (1 - b2) * c * c
        x = x - lr * (wd * x + m / ((np.sqrt(v) / np.sqrt(1 - b2**t) + eps) * (1 - b1**t)))
    return x


def mars_lion(x, grads, lr, wd=0.0, beta=0.95, gamma=0.025, clip=1.0, first="paper"):
    for _, m, _ in momenta(grads, previous(grads), beta, gamma, clip, first):
        x = x - lr * (wd * x + np.sign(m))
    return x


def mars_shampoo(x, grads, lr, wd=0.0, beta=0.95, gamma=0.025, clip=1.0, first="paper"):
    for _, m, _ in momenta(grads, previous(grads), beta, gamma, clip, first):
        x = x - lr * (wd * x + original(x) * newton_schulz(m / (1 - beta), eps=1e-8))
    return x


def noise_adapted(x, grads, lr, wd=0.0, beta=0.95, gamma=None, eps=1e-8):
    """Muon-NSR with ``gamma``; Muon-VS without."""
    m, v = np.zeros_like(x), np.zeros_like(x)
    for t, g in enumerate(grads, 1):
        v = beta * v + beta * (1 - beta) * (m - g) ** 2
        m = beta * m + (1 - beta) * g
        target = g + beta / (1 - beta) * m / (1 - beta**t)
        noise = v / (1 - beta**t)
        under = noise + eps if gamma is None else target**2 + gamma * noise + eps
        x = x * (1 - lr * wd) - lr * match_rms(x) * newton_schulz(target / np.sqrt(under))
    return x

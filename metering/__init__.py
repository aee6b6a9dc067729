"""How many tokens answers took. Shared by the gateway of the sandbox and, on a cluster, the meter beside Envoy.

It knows neither of them, nor the site: bytes come in, numbers come out.
"""

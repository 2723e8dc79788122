"""What the shared cluster of tests/e2e/node is installed with: leases short enough to watch them end."""

RENEW_SECONDS = 10
LEASE_SECONDS = 60
VALUES = (
    f"broker.config.renewSeconds={RENEW_SECONDS}",
    f"broker.config.leaseSeconds={LEASE_SECONDS}",
    "config.controller.settleSeconds=1",
)

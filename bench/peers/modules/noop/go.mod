module weightlock.dev/bench/peers/noop

go 1.26.0

module weightlock.dev/bench/peers/load

go 1.26.0

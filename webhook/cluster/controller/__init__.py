"""The controller: everything in a cluster except admission reviews. One replica is the leader, the others wait."""

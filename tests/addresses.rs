//! The addresses of a board that change while its peer runs: a cable is put in, a lease ends, a tunnel opens.

mod support;

use support::boards::Boards;
use support::cluster::PATIENCE;
use support::wait_for;

/// Waits until the peer on board 1 tells of an address, or does not.
fn wait_told(boards: &Boards, address: &str, told: bool) {
    wait_for(&format!("{address} told: {told}"), PATIENCE, || {
        let id = boards.ok(1, "pinfold id");
        (id.contains(address) == told).then_some(()).ok_or(id)
    });
}

#[test]
fn addresses_are_told_of_as_they_come_and_go() {
    let Some(boards) = Boards::new(1) else { return };
    let mut peer = boards.start(1, "peer", "pinfold up");
    peer.wait_for("is ready");
    wait_told(&boards, "/ip4/10.77.0.1/tcp/9096", true);
    boards.ok(1, "ip addr add 10.78.0.1/24 dev eth0");
    wait_told(&boards, "/ip4/10.78.0.1/tcp/9096", true);
    boards.ok(1, "ip addr del 10.78.0.1/24 dev eth0");
    wait_told(&boards, "/ip4/10.78.0.1/tcp/9096", false);
    wait_told(&boards, "/ip4/10.77.0.1/tcp/9096", true);
    // An interface that appears with its address, and goes with it.
    boards.ok(1, "ip link add tunnel type veth peer name far; ip addr add 10.79.0.1/24 dev tunnel; ip link set tunnel up");
    wait_told(&boards, "/ip4/10.79.0.1/tcp/9096", true);
    // More words than are taken in one go.
    boards.ok(1, "for n in $(seq 2 200); do ip addr add 10.80.0.$n/32 dev tunnel; done");
    wait_told(&boards, "/ip4/10.80.0.200/tcp/9096", true);
    boards.ok(1, "ip link del tunnel");
    wait_told(&boards, "/ip4/10.79.0.1/tcp/9096", false);
    wait_told(&boards, "/ip4/10.80.0.200/tcp/9096", false);
    peer.interrupt();
}

//! Servers come and go, and the group shares the shards out.

use super::{Server, ToServer};
use crate::faults::Fault;
use crate::world::{Event, World};

impl World {
    pub(crate) fn begin_servers(&mut self) {
        for server in 0..self.servers.len() {
            self.start_server(server);
        }
    }

    /// Starts a server, and tells the group.
    pub(crate) fn start_server(&mut self, number: usize) {
        let level_max = if self.faults.has(Fault::Upgrade) { 1 } else { self.level.max(1) };
        let skew = if self.faults.strikes(Fault::OwnClock, 2) {
            self.faults.rng(Fault::OwnClock).i64(-20_000..20_000)
        } else {
            0
        };
        let server = &mut self.servers[number];
        let known = server.level_max.max(level_max);
        *server = Server {
            life: server.life + 1,
            up: true,
            skew,
            level_max: known,
            tenures: server.tenures,
            ..Server::default()
        };
        self.tell(|| format!("server {number} starts"));
        self.rebalance();
    }

    /// Kills a server. The group notices when its session is over.
    pub(crate) fn kill_server(&mut self, number: usize) {
        let server = &mut self.servers[number];
        server.up = false;
        server.life += 1;
        server.slots.clear();
        server.heard.clear();
        self.tell(|| format!("server {number} is killed"));
    }

    /// Goes on where it stood.
    pub(crate) fn resume_server(&mut self, number: usize) {
        let server = &mut self.servers[number];
        if !std::mem::take(&mut server.paused) {
            return;
        }
        let life = server.life;
        let heard = std::mem::take(&mut server.heard);
        self.tell(|| format!("server {number} wakes up, {} messages waiting", heard.len()));
        for heard in heard {
            self.server_hears(number, life, heard);
        }
        let partitions: Vec<i32> = self.servers[number].slots.keys().copied().collect();
        for partition in partitions {
            self.look_after(number, partition);
        }
        self.rebalance();
    }

    /// The group shares the shards out among who is there, by chance.
    pub(crate) fn rebalance(&mut self) {
        let there: Vec<usize> = (0..self.servers.len())
            .filter(|number| {
                let server = &self.servers[*number];
                server.up && !server.paused && !server.stopping
            })
            .collect();
        for partition in 0..self.partitions {
            let before = self.assigned.get(&partition).copied();
            let stays = before.filter(|server| there.contains(server) && self.net.u8(0..3) > 0);
            let Some(after) =
                stays.or_else(|| (!there.is_empty()).then(|| there[self.net.usize(0..there.len())]))
            else {
                self.assigned.remove(&partition);
                continue;
            };
            if before == Some(after) && self.servers[after].slots.contains_key(&partition) {
                continue;
            }
            self.assigned.insert(partition, after);
            if let Some(before) = before.filter(|before| *before != after) {
                self.tell_server(before, ToServer::Taken(partition));
            }
            self.tell_server(after, ToServer::Given(partition));
        }
    }

    pub(super) fn tell_server(&mut self, server: usize, heard: ToServer) {
        // What the group says to one member comes in order.
        let at = self.now + self.latency();
        let member = &mut self.servers[server];
        let at = at.max(member.group_heard);
        member.group_heard = at;
        let life = member.life;
        self.after(at - self.now, Event::Server(server, life, heard));
    }
}

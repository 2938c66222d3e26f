//! The server as clients of all manners find it.

use super::super::inferior::STEPS_PER_RUN;
use super::*;
use std::time::Instant;

struct Client(TcpStream);

impl Client {
    fn attach(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address()).unwrap();
        // So that a server that stays silent fails the test.
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self(stream)
    }

    /// Sends bytes as they are.
    fn write(&mut self, bytes: &[u8]) {
        Write::write_all(&mut self.0, bytes).unwrap();
    }

    fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        self.write(format!("${packet}#{sum:02x}").as_bytes());
    }

    /// The next packet, without frame; acknowledgements are passed over.
    fn receive(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.iter().rev().nth(2) != Some(&b'#') {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            if !bytes.is_empty() || byte == *b"$" {
                bytes.push(byte[0]);
            }
        }
        let (body, sum) = bytes[1..].split_at(bytes.len() - 4);
        let expected = body.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!(sum, format!("#{expected:02x}").as_bytes());
        body.to_vec()
    }

    /// Lets the machine run and returns once it does.
    fn let_run(&mut self) {
        self.send("vCont;c");
        // A damaged packet stops nothing, and is answered.
        self.write(b"$#01");
        let mut byte = [0];
        while byte != *b"-" {
            self.0.read_exact(&mut byte).unwrap();
        }
    }

    fn ask(&mut self, packet: &str) -> String {
        self.send(packet);
        String::from_utf8(self.receive()).unwrap()
    }

    /// Steps the machine has taken, from its statistics.
    fn steps(&mut self) -> u64 {
        let hex = |text: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<String>();
        self.send(&format!("vFile:open:{},0,0", hex("hyp/stats")));
        assert_eq!(self.receive(), b"F04");
        let text = self.ask("vFile:pread:4,1000,0");
        let line = text.lines().next().unwrap();
        line.split_once("steps: ").unwrap().1.parse().unwrap()
    }
}

fn server() -> Server {
    Server::start(Machine::start(4).unwrap()).unwrap()
}

const INTERRUPTED: &str = "T02thread:01;";

#[test]
fn a_new_machine_stands_still_and_a_vanished_client_leaves_it_so() {
    let server = server();
    let mut first = Client::attach(&server);
    assert_eq!(first.ask("?"), "T05thread:01;");
    let (registers, steps) = (first.ask("g"), first.steps());
    drop(first);
    let mut second = Client::attach(&server);
    assert_eq!(second.ask("?"), "T05thread:01;", "nothing else comes first");
    assert_eq!((second.ask("g"), second.steps()), (registers, steps));
}

#[test]
fn it_runs_until_it_is_interrupted_and_not_too_fast() {
    let server = server();
    let mut client = Client::attach(&server);
    let before = client.steps();
    let start = Instant::now();
    client.send("vCont;c");
    client.write(b"\x03");
    assert_eq!(client.receive(), INTERRUPTED.as_bytes());
    let once = client.steps();
    client.send("vCont;c");
    // A few stop replies' worth of time, measured in answers and not in sleep.
    for _ in 0..5 {
        client.write(b"\x03");
        assert_eq!(client.receive(), INTERRUPTED.as_bytes());
        client.send("vCont;c");
    }
    client.write(b"\x03");
    assert_eq!(client.receive(), INTERRUPTED.as_bytes());
    let after = client.steps();
    assert!(after > once && once >= before);
    let ticks = start.elapsed().as_millis() as u64 / TICK.as_millis() as u64;
    // A tick may end early because a packet came: twice for each of seven runs.
    let most = (ticks + 14 + 1) * STEPS_PER_RUN;
    assert!(
        after - before <= most,
        "{} steps, at most {most}",
        after - before
    );
}

#[test]
fn an_interrupt_of_a_machine_that_stands_is_nothing() {
    let server = server();
    let mut client = Client::attach(&server);
    let before = client.steps();
    client.write(b"\x03");
    assert_eq!(client.steps(), before);
    client.send("vCont;c");
    client.write(b"\x03");
    assert_eq!(client.receive(), INTERRUPTED.as_bytes());
    assert!(
        client.steps() > before,
        "the continue was not answered by the old interrupt"
    );
}

#[test]
fn a_client_that_attaches_to_a_running_machine_is_told_and_stops_it() {
    let server = server();
    let mut killed = Client::attach(&server);
    let start = killed.steps();
    killed.let_run();
    drop(killed);

    let mut second = Client::attach(&server);
    assert_eq!(second.receive(), INTERRUPTED.as_bytes());
    let stopped = second.steps();
    assert!(stopped > start);
    assert_eq!(second.steps(), stopped, "it stands");
    assert_eq!(second.ask("D;1"), "OK");
    drop(second);

    let mut third = Client::attach(&server);
    assert_eq!(
        third.receive(),
        INTERRUPTED.as_bytes(),
        "detaching let it run"
    );
    assert!(third.steps() > stopped);
}

#[test]
fn what_a_client_left_behind_is_gone_for_the_next() {
    let server = server();
    let mut first = Client::attach(&server);
    let entry = super::super::layout::Function::HandleTrap.address();
    assert_eq!(first.ask(&format!("Z0,{entry:x},4")), "OK");
    first.send("vCont;c");
    let stop = String::from_utf8(first.receive()).unwrap();
    assert!(
        stop.starts_with("T05") && stop.contains("swbreak"),
        "{stop}"
    );
    drop(first);
    let mut second = Client::attach(&server);
    assert_eq!(
        second.ask(&format!("z0,{entry:x},4")),
        "E16",
        "no such breakpoint"
    );
}

#[test]
fn a_step_is_one_step_of_one_cpu() {
    let server = server();
    let mut client = Client::attach(&server);
    let before = client.steps();
    let stop = client.ask("vCont;s:3;c");
    client.ask("Hg3");
    assert_eq!(stop, format!("T05thread:03;20:{};", client.ask("p20")));
    assert_eq!(client.steps(), before + 1);
}

#[test]
fn a_panic_of_hyp_is_reported_by_its_cpu() {
    let server = server();
    let mut client = Client::attach(&server);
    // A CPU at EL2 reaches the tables through hyp's linear map.
    let read = |client: &mut Client, va: u64| {
        let answer = client.ask(&format!("m{va:x},8"));
        u64::from_str_radix(&answer, 16).map(u64::swap_bytes)
    };
    let hyp = super::super::layout::HYP + super::super::layout::LINEAR_OFFSET;
    let root = (1..=4)
        .find_map(|thread| {
            assert_eq!(client.ask(&format!("Hg{thread}")), "OK");
            read(&mut client, hyp + 0x10).ok()
        })
        .unwrap();
    let slot = root + super::super::layout::LINEAR_OFFSET + 8;
    assert_eq!(client.ask(&format!("M{slot:x},8:0300009000000000")), "OK");
    client.send("vCont;c");
    let stop = String::from_utf8(client.receive()).unwrap();
    assert!(stop.starts_with("T06thread:0"), "{stop}");
}

#[test]
fn a_client_that_makes_no_sense_may_go_on_and_so_may_the_next() {
    let server = server();
    for nonsense in ["$g#00", "$vFile:open:zz#", "-", "$m", "#"] {
        let mut client = Client::attach(&server);
        client.write(nonsense.as_bytes());
        assert_eq!(client.ask("qAttached"), "1", "{nonsense}");
    }
    assert_eq!(Client::attach(&server).ask("?"), "T05thread:01;");
}

#[test]
fn a_server_ends_while_a_client_watches() {
    let server = server();
    let mut client = Client::attach(&server);
    client.let_run();
    drop(server);
    let mut rest = Vec::new();
    let _ = client.0.read_to_end(&mut rest);
}

#[test]
fn one_client_at_a_time_the_next_waits() {
    let server = server();
    let mut first = Client::attach(&server);
    assert_eq!(first.ask("?"), "T05thread:01;");
    let mut second = Client::attach(&server);
    second.send("?");
    assert_eq!(first.ask("qAttached"), "1", "the first is still served");
    drop(first);
    assert_eq!(second.receive(), b"T05thread:01;", "now the second is");
}

#[test]
fn bulk_reads_come_in_large_packets_and_are_what_memory_holds() {
    let machine = Machine::start(4).unwrap();
    let start = super::super::layout::HYP;
    let mut expected = vec![0; 0x6000];
    assert_eq!(
        Inferior::read_phys(&machine, start, &mut expected),
        expected.len()
    );
    let server = Server::start(machine).unwrap();
    let mut client = Client::attach(&server);
    assert_eq!(client.ask("QStartNoAckMode"), "OK");
    let name: String = "hyp/physmem".bytes().map(|b| format!("{b:02x}")).collect();
    assert_eq!(client.ask(&format!("vFile:open:{name},0,0")), "F01");
    client.send(&format!("vFile:pread:1,6000,{start:x}"));
    let answer = client.receive();
    let data = answer
        .strip_prefix(b"F6000;")
        .expect("all of it in one packet");
    let mut bytes = Vec::new();
    let mut data = data.iter();
    while let Some(&byte) = data.next() {
        // Binary data: 0x7d escapes the byte behind it, which was exclusive-ored with 0x20.
        bytes.push(match byte {
            b'}' => data.next().unwrap() ^ 0x20,
            _ => byte,
        });
    }
    assert!(bytes == expected);
}

#[test]
fn requests_may_be_sent_before_the_answers_are_read() {
    let server = server();
    let mut client = Client::attach(&server);
    for thread in 1..=4 {
        client.send(&format!("Hg{thread}"));
        client.send("p20");
    }
    let answers: Vec<_> = (0..8)
        .map(|_| String::from_utf8(client.receive()).unwrap())
        .collect();
    for (thread, pair) in (1..=4).zip(answers.chunks(2)) {
        assert_eq!(pair[0], "OK");
        assert_eq!(client.ask(&format!("Hg{thread}")), "OK");
        assert_eq!(client.ask("p20"), pair[1], "pc of thread {thread}");
    }
}

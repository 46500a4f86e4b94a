//! Every metric there is. `role` is put before the labels of all of them by the shell, but for those of the process.
//! docs/metrics.md has the same table: a test compares them.

use super::{Kind, Metric};

macro_rules! metrics {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub static $id: Metric = Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*
        pub static ALL: &[&Metric] = &[$(&$id),*];
    };
}

metrics! {
    SIP_MESSAGES: Counter "imsbox_sip_messages_total" ["direction", "method", "status"]
        "SIP messages; the status of a request is request";
    SIP_RETRANSMISSIONS: Counter "imsbox_sip_retransmissions_total" ["direction"]
        "SIP messages that were sent, or came, once more";
    SIP_FAILOVERS: Counter "imsbox_sip_failovers_total" []
        "SIP requests that went on to another target, because the one before failed";
    SIP_REFUSED: Counter "imsbox_sip_refused_total" ["status"]
        "SIP messages refused before they became a transaction; status none: not answered";
    SIP_DROPPED: Counter "imsbox_sip_dropped_total" ["reason"]
        "SIP messages that came to nothing";
    SIP_TRANSACTIONS: Gauge "imsbox_sip_transactions" ["state"]
        "SIP transactions: open as server or client, located and not answered (request), lingering to absorb repetitions";
    REFUSALS: Counter "imsbox_refusals_total" ["refusal"]
        "What the role refused or dropped, by the name in the log";
    REGISTRATIONS: Counter "imsbox_registrations_total" ["outcome", "cause"]
        "REGISTERs answered for good and registrations ended; cause is the refusal, or the status that came from the core";
    REGISTERED: Gauge "imsbox_registered_handsets" []
        "Registrations in force";
    SUBSCRIPTIONS: Gauge "imsbox_registration_subscriptions" []
        "Subscriptions to how users are registered";
    AUTHENTICATING: Gauge "imsbox_authenticating_handsets" []
        "Handsets with an open challenge";
    IN_PROGRESS: Gauge "imsbox_requests_in_progress" []
        "Requests that wait for another element, the kernel or the store";
    UNDER_WAY: Gauge "imsbox_proxied_requests" []
        "Requests on their way through, without a final answer; calls that ring are among them";
    AS_REQUESTS: Counter "imsbox_application_server_requests_total" ["outcome"]
        "Requests that went to an application server: answered, continued or terminated after it failed, cancelled";
    REGISTRATION_TIME: Histogram "imsbox_registration_duration_seconds" ["phase"]
        "Time that a REGISTER took until its answer left: challenge, answer; total is the whole registration with both";
    SESSIONS: Gauge "imsbox_sessions" ["state"]
        "Sessions that handsets here take part in: ringing, answered";
    SA_SETS: Gauge "imsbox_sa_sets" ["state"]
        "Sets of security associations";
    SA_OPERATIONS: Counter "imsbox_sa_operations_total" ["operation", "result"]
        "What the kernel was asked about sets of security associations, and what it said";
    ESP: Gauge "imsbox_esp_available" []
        "1 unless the kernel has said that it has no ESP, or the policy is never";
    SOURCES: Gauge "imsbox_sources" []
        "Sources (addresses, or networks of IPv6) that send in clear and are remembered";
    SOURCES_BANNED: Gauge "imsbox_sources_banned" []
        "Sources that are banned";
    SOURCE_BANS: Counter "imsbox_source_bans_total" ["cause"]
        "Bans of sources";
    SOURCE_DROPPED: Counter "imsbox_source_dropped_total" ["reason"]
        "Messages in clear that were not read: of a banned source, or beyond the rate of one";
    ADMISSION_LIMITING: Gauge "imsbox_admission_limiting" []
        "1 while the P-CSCF lets in only some new registrations, because it or the core does not keep up";
    ADMISSION_RATE: Gauge "imsbox_admission_rate" []
        "New registrations a second that are let in while it is limiting, else 0";
    ADMISSION_REFUSED: Counter "imsbox_admission_refused_total" []
        "New registrations refused with 503 and Retry-After before they were read any further";
    TRUNK_UP: Gauge "imsbox_trunk_up" ["trunk"]
        "1 while a trunk of [breakout] answers, else 0";
    TRUNK_REQUESTS: Counter "imsbox_trunk_requests_total" ["trunk", "state"]
        "Requests that a trunk was given (sent), and those of them that it could not take (failed)";
    DIAMETER_MESSAGES: Counter "imsbox_diameter_messages_total" ["direction", "command", "result"]
        "Diameter messages; the result of a request is request";
    DIAMETER_REFUSALS: Counter "imsbox_diameter_refusals_total" ["refusal"]
        "Diameter messages and connections that were not accepted";
    DIAMETER_PEERS: Gauge "imsbox_diameter_peers" ["state"]
        "Diameter peers";
    DIAMETER_IN_FLIGHT: Gauge "imsbox_diameter_requests_in_flight" ["direction"]
        "Diameter requests without an answer yet: sent by us, received from peers";
    DIAMETER_TIME: Histogram "imsbox_diameter_request_duration_seconds" ["command"]
        "Time from a Diameter request of ours to its answer";
    STORE_TIME: Histogram "imsbox_store_duration_seconds" ["operation"]
        "Time that the store took as the node saw it: load, commit (an answer waits for it), other";
    SUBSCRIBERS_CACHED: Gauge "imsbox_cached_subscribers" []
        "Subscribers in the memory of the HSS";
    SUBSCRIBERS_UNWRITTEN: Gauge "imsbox_unwritten_subscribers" []
        "Subscribers whose last MAR is answered and not yet written to the store";
    NODE_UP: Gauge "imsbox_up" []
        "1 when the node told its metrics in time";
    NODE_TIME: Histogram "imsbox_handling_duration_seconds" ["event"]
        "Time that the node took for one event, sending included";
    INBOX_EVENTS: Gauge "imsbox_inbox_events" ["room"]
        "Events that wait for the node: general is for datagrams and readers of connections, reserved for other nodes in the process";
    INBOX_WAIT: Histogram "imsbox_inbox_wait_seconds" []
        "How long the oldest event of a batch had waited for the node, a datagram in the kernel too";
    INBOX_DROPPED: Counter "imsbox_inbox_dropped_total" []
        "Events thrown away because the inbox was full";
    STORE_QUEUE: Gauge "imsbox_store_queue" []
        "Requests that wait for the database";
    STORE_REFUSED: Counter "imsbox_store_refused_total" []
        "Requests that found the queue of the database full";
    KEPT: Gauge "imsbox_kept_entries" []
        "Entries that the node keeps across restarts";
    KEPT_WAITING: Gauge "imsbox_kept_waiting" []
        "Changes of what the node keeps that wait for a store that fails; a restart now would lose them";
    KEPT_FAILURES: Counter "imsbox_kept_failures_total" ["operation"]
        "How often what the node keeps could not be read (restore) or written (commit)";
    KEPT_LOST: Counter "imsbox_kept_lost_total" []
        "Changes of what the node keeps that were given up, because too many waited for a store that fails";
    TCP_CONNECTIONS: Gauge "imsbox_tcp_connections" ["protocol"]
        "Open connections with peers outside of this process";
    TCP_QUEUE: Gauge "imsbox_tcp_queue" ["protocol"]
        "Messages that wait to be sent on connections";
    TCP_QUEUE_FULL: Counter "imsbox_tcp_queue_full_total" ["protocol"]
        "Messages thrown away because a connection took none; a Diameter connection is closed then";
    TCP_REFUSED: Counter "imsbox_tcp_refused_total" ["protocol"]
        "Connections refused because too many are open";
    SA_QUEUE: Gauge "imsbox_sa_queue" []
        "Changes of security associations that wait for the kernel";
    SA_QUEUE_FULL: Counter "imsbox_sa_queue_full_total" []
        "Changes of security associations that found their queue full";
    BUILD: Gauge "imsbox_build_info" ["version"]
        "Always 1; the version of the program";
    CPU: Counter "process_cpu_seconds_total" []
        "User and system CPU time of the process";
    MEMORY: Gauge "process_resident_memory_bytes" []
        "Resident memory of the process";
    VIRTUAL: Gauge "process_virtual_memory_bytes" []
        "Virtual memory of the process";
    OPEN_FILES: Gauge "process_open_fds" []
        "Open file descriptors";
    MOST_FILES: Gauge "process_max_fds" []
        "Most file descriptors that the process may open";
    START_TIME: Gauge "process_start_time_seconds" []
        "When the process started, in seconds since the Unix epoch";
}

/// Whether it is told once for the process, without `role`.
pub fn of_process(metric: &Metric) -> bool {
    [&SA_QUEUE, &SA_QUEUE_FULL, &BUILD].iter().any(|m| m.name == metric.name) || metric.name.starts_with("process_")
}

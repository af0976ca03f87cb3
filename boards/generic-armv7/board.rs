// A 32-bit ARM system that nobody has named: no NEON taken for granted, 256 MiB or more.
Board {
    name: "generic-armv7",
    memory: 28 * MIB,
    suites: Suites::ChaChaFirst,
    pre_auth: 6,
    pre_auth_per_address: 4,
    clients: Clients { mqtt: 24, chamber: 16, rtsp: 8, ftp: 8, http: 12 },
    mqtt: Mqtt {
        inbox: 64 * KIB,
        // A usual full state with its head, in one system call.
        outbox: 20 * KIB,
        ring: 32,
        requests: 10,
        small: Shape { count: 96, size: 2 * KIB },
        large: Shape { count: 12, size: 64 * KIB },
    },
    chamber: Chamber {
        // 1280×720: 40 to 120 KiB were seen, 172 KiB from an A2L (01.01.05.00).
        picture: 320 * KIB,
        ring: 2,
    },
    rtsp: Rtsp {
        // 1080p at a few Mbit/s: key frames of 60 to 150 KiB.
        picture: 256 * KIB,
        ring: 704,
    },
}

// Raspberry Pi 3: four Cortex-A53 cores of which one is used, no AES instructions, 1 GiB.
Board {
    name: "rpi-3",
    memory: 32 * MIB,
    suites: Suites::ChaChaFirst,
    pre_auth: 8,
    pre_auth_per_address: 6,
    clients: Clients { mqtt: 32, chamber: 20, rtsp: 8, ftp: 8, http: 16 },
    mqtt: Mqtt {
        inbox: 64 * KIB,
        // A usual full state with its head, in one system call.
        outbox: 20 * KIB,
        ring: 32,
        requests: 14,
        small: Shape { count: 96, size: 2 * KIB },
        large: Shape { count: 16, size: 64 * KIB },
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

# Sets `key` and `value` from a line of settings, as the program reads them: a byte order mark, CRLF and quotes are accepted.
# Without a key, the line is a comment or none.
function read_line(line,    at, quote) {
    key = value = ""
    if (NR == 1) sub(/^\357\273\277/, "", line)
    gsub(/^[ \t\r]+|[ \t\r]+$/, "", line)
    at = index(line, "=")
    if (line ~ /^#/ || !at) return
    key = substr(line, 1, at - 1)
    sub(/[ \t]+$/, "", key)
    value = substr(line, at + 1)
    sub(/^[ \t]+/, "", value)
    quote = substr(value, 1, 1)
    if ((quote == "\"" || quote == "'") && length(value) > 1 && substr(value, length(value)) == quote)
        value = substr(value, 2, length(value) - 2)
}

# Words to the keys of an array.
function set_of(words, array,    list, n, i) {
    n = split(words, list, " ")
    for (i = 1; i <= n; i++) array[list[i]] = 1
}

BEGIN {
    set_of("ACCESS_CODE VIEW_CODE HTTP_TOKEN WIFI_PSK ADMIN_CODE", is_secret)
    # Not the program's: the machine's.
    set_of("HOSTNAME WIFI_SSID WIFI_PSK WIFI_COUNTRY ADDRESS GATEWAY DNS NTP_SERVER ADMIN_CODE DEBUG_SHELL_MINUTES", is_of_card)
}

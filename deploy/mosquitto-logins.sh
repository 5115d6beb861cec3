#!/bin/sh
# Make Mosquitto's password file, with hashed passwords, from the environment:
#   MQTT_PASSWORD=… MQTT_BILLING_PASSWORD=… sh deploy/mosquitto-logins.sh /etc/mosquitto/passwords
# A login without a password is not made. Then restart Mosquitto, or send it SIGHUP. Rights: mosquitto.acl.
set -euf

file=${1:-/mosquitto/data/passwords}
roles="csms coin-op ev-meter charge-amps billing hems homeassistant prices"
umask 077
new="$file.new"
trap 'rm -f "$new"' EXIT
: >"$new"

refuse() {
    echo "mosquitto-logins: $1" >&2
    exit 1
}

add() { # NAME PASSWORD VARIABLE
    case $2 in
    "") return ;;
    *:* | *[[:space:]]*) refuse "the password of $1 ($3) contains a colon or white space: openssl rand -hex 24 makes a good one." ;;
    esac
    printf '%s:%s\n' "$1" "$2" >>"$new"
}

[ -n "${MQTT_PASSWORD:-}" ] || refuse "put MQTT_PASSWORD, the password of csms, into .env."
add csms "$MQTT_PASSWORD" MQTT_PASSWORD
add coin-op "${MQTT_COIN_OP_PASSWORD:-}" MQTT_COIN_OP_PASSWORD
add ev-meter "${MQTT_EV_METER_PASSWORD:-}" MQTT_EV_METER_PASSWORD
add charge-amps "${MQTT_CHARGE_AMPS_PASSWORD:-}" MQTT_CHARGE_AMPS_PASSWORD
add billing "${MQTT_BILLING_PASSWORD:-}" MQTT_BILLING_PASSWORD
add hems "${MQTT_HEMS_PASSWORD:-}" MQTT_HEMS_PASSWORD
add homeassistant "${MQTT_HOMEASSISTANT_PASSWORD:-}" MQTT_HOMEASSISTANT_PASSWORD
add prices "${MQTT_PRICES_PASSWORD:-}" MQTT_PRICES_PASSWORD

# MQTT_STATIONS: "ID=PASSWORD ID=PASSWORD …"
for station in ${MQTT_STATIONS:-}; do
    id=${station%%=*}
    case $station in
    ?*=?*) ;;
    *) refuse "MQTT_STATIONS has an entry that is not ID=PASSWORD." ;;
    esac
    case $id in
    *[:/+#]* | *%*) refuse "a station of MQTT_STATIONS has one of : / + # % in its id." ;;
    esac
    case " $roles " in
    *" $id "*) refuse "a station of MQTT_STATIONS has the name of the login $id." ;;
    esac
    add "$id" "${station#*=}" MQTT_STATIONS
done

mosquitto_passwd -U "$new"
mv "$new" "$file"
echo "mosquitto-logins: $(wc -l <"$file") logins in $file."

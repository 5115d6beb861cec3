"""The sentences of the rental page in Ukrainian and English.

M1 to M6, B1 and B2 are the sentences of the customer's document, with its spelling corrected.
"""

from typing import Final

UKRAINIAN, ENGLISH = LANGUAGES = ("uk", "en")

MESSAGES: Final[dict[str, tuple[str, str]]] = {
    "M1": (
        "Зарядна станція використовується іншим користувачем. Оберіть іншу станцію або спробуйте пізніше."
        " Якщо ви бачите, що станція фізично не використовується, зверніться в технічну підтримку.",
        "The charging station is used by another user. Choose another station or try later."
        " If you can see that it is not in use, contact support.",
    ),
    "M2": (
        "Зарядна станція не відповідає. Зачекайте декілька хвилин."
        " Якщо помилка не зникне, зверніться в технічну підтримку.",
        "The charging station does not answer. Wait a few minutes. If the error stays, contact support.",
    ),
    "M3": ("Заряджання завершено.", "Charging is complete."),
    "M4": (
        "Відкрийте дверцята, відʼєднайте дроти, закрийте дверцята.",
        "Open the door, unplug the wires, close the door.",
    ),
    "M5": ("Недостатньо коштів на рахунку.", "Not enough money on the account."),
    "M6": (
        "Підключіть дріт і закрийте дверцята. Час оренди вже рахується.",
        "Plug in and close the door. The rental time is running.",
    ),
    "B1": ("Відкрити зарядну станцію", "Open the charging station"),
    "B2": ("Припинити заряджання", "Stop charging"),
    # --- The sentences that the customer's document does not give.
    "asking": ("Звертаємося до станції…", "Asking the station…"),
    "opening": ("Відчиняємо…", "Opening…"),
    "stopping": ("Завершуємо…", "Ending…"),
    "free": ("Станція вільна", "The station is free"),
    "starting_up": ("Станція вмикається", "The station is starting up"),
    "busy": ("Дверцята відчинено", "The door is open"),
    "charging": ("Заряджання", "Charging"),
    "completed": ("Заряджання завершено", "Charging is complete"),
    "done": ("Оренду завершено", "The rental has ended"),
    "occupied": ("Станція зайнята", "The station is in use"),
    "silent": ("Немає звʼязку", "No connection"),
    "not_now": (
        "Станція тимчасово недоступна. Оберіть іншу або зверніться в технічну підтримку.",
        "The station is out of service for now. Choose another one or contact support.",
    ),
    "elsewhere": (
        "Ви вже орендуєте іншу станцію.",
        "You are renting another station already.",
    ),
    "blocked": (
        "Ваш рахунок заблоковано. Зверніться в технічну підтримку.",
        "Your account is blocked. Contact support.",
    ),
    "no_account": ("Рахунок не знайдено.", "There is no such account."),
    "most_spent": ("Використано понад 80 % коштів на рахунку.", "More than 80 % of the balance is used."),
    "all_spent": (
        "Кошти на рахунку вичерпано. Оренда триває в борг.",
        "The balance is used up. The rental goes on, as a debt.",
    ),
    "unplug": (
        "Дверцята станції досі відчинені. Відʼєднайте дроти й закрийте дверцята: на станцію чекають інші.",
        "The station's door is still open. Unplug the wires and close it: others are waiting for the station.",
    ),
    "call_support": (
        "Якщо дверцята не зачиняються, зверніться в технічну підтримку.",
        "If the door does not close, contact support.",
    ),
    "too_often": ("Забагато команд поспіль. Зачекайте трохи.", "Too many commands at once. Wait a little."),
    "back": ("Назад до станції", "Back to the station"),
    "time": ("Час", "Time"),
    "power": ("Потужність", "Power"),
    "energy": ("Енергія", "Energy"),
    "cost": ("Вартість", "Cost"),
    "balance": ("Баланс", "Balance"),
    "amount": ("Сума", "Amount"),
    "top_up": ("Поповнити рахунок", "Top up"),
    "sign_in": ("Увійти", "Sign in"),
    "sign_out": ("Вийти", "Sign out"),
    "code": ("Код входу", "Sign-in code"),
    "sign_in_hint": (
        "Відкрийте станцію за посиланням з вашого додатка або введіть одноразовий код.",
        "Open the station by the link from your app, or enter a one-time code.",
    ),
    "bad_code": (
        "Код недійсний або вже використаний. Отримайте новий.",
        "The code is not valid or has been used. Get a new one.",
    ),
    "no_station": ("Такої станції немає.", "There is no such station."),
    "gone_wrong": ("Щось пішло не так. Спробуйте ще раз.", "Something went wrong. Try again."),
    "station": ("Зарядна станція", "Charging station"),
    "kwh": ("кВт·год", "kWh"),
    "kw": ("кВт", "kW"),
}


def text(name: str, language: str) -> str:
    return MESSAGES[name][LANGUAGES.index(language)]


def language_of(accepted: str, chosen: str | None = None) -> str:
    """Return the chosen language, else the one that Accept-Language prefers, else Ukrainian."""
    if chosen in LANGUAGES:
        return str(chosen)
    wanted: list[tuple[float, str]] = []
    for part in accepted.split(","):
        name, _, weight = part.partition(";")
        language = name.strip().lower().partition("-")[0]
        if language in LANGUAGES and (quality := _quality(weight)) > 0:
            wanted.append((-quality, language))
    return min(wanted, key=lambda each: each[0])[1] if wanted else UKRAINIAN


def _quality(parameter: str) -> float:
    """Return the weight of a language, `q=0.8` (RFC 9110, 12.4.2); 1 where there is none."""
    name, _, value = parameter.strip().partition("=")
    try:
        return float(value) if name.strip().lower() == "q" else 1.0
    except ValueError:
        return 1.0


def clock(seconds: int) -> str:
    """Return a duration as `1:05:09` or `5:09`."""
    minutes, seconds = divmod(max(seconds, 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"

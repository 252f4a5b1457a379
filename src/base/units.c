#include "base/units.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static dc_status not_a_count(const char *text)
{
    return dc_fail(DC_ERR_INPUT, "'%s' is not a whole number such as 2500, 40k or 3.5M", text);
}

/* The power of ten of a count's suffix, -1 for none of ours. */
static int decimal_suffix(const char *suffix)
{
    static const char letters[] = "kMGT";
    if (!*suffix)
        return 0;
    const char *at = strchr(letters, *suffix == 'K' ? 'k' : *suffix);
    return at && !suffix[1] ? 3 * (int)(at - letters + 1) : -1;
}

dc_status dc_parse_count(const char *text, int64_t *value)
{
    int64_t sum = 0;
    int digits = 0, fraction = 0, dangling = 0; /* dangling: zeros at the fraction's end, which carry no value */
    bool overflow = false, point = false;
    const char *s = text;
    for (; isdigit((unsigned char)*s) || (*s == '.' && !point) || (*s == '_' && digits && isdigit((unsigned char)s[1]));
         s++) {
        if (*s == '.')
            point = true;
        if (*s == '.' || *s == '_')
            continue;
        digits++;
        if (point && *s == '0') {
            dangling++;
            continue;
        }
        for (; point && dangling; dangling--, fraction++)
            overflow |= __builtin_mul_overflow(sum, 10, &sum);
        overflow |= __builtin_mul_overflow(sum, 10, &sum) || __builtin_add_overflow(sum, *s - '0', &sum);
        fraction += point;
    }
    int exponent = decimal_suffix(s) < 0 ? -1 : decimal_suffix(s) - fraction;
    if (!digits || exponent < 0)
        return not_a_count(text);
    for (; exponent; exponent--)
        overflow |= __builtin_mul_overflow(sum, 10, &sum);
    if (overflow)
        return dc_fail(DC_ERR_INPUT, "'%s' is too large: at most 9,223,372,036,854,775,807", text);
    *value = sum;
    return DC_OK;
}

/* A plain decimal number (no sign, exponent, hexadecimal, inf); *end is set past it, to text when there is none. */
static double plain_number(const char *text, const char **end)
{
    size_t length = strspn(text, "0123456789");
    size_t digits = length;
    if (text[length] == '.') {
        size_t fraction = strspn(text + length + 1, "0123456789");
        digits += fraction;
        length += 1 + fraction;
    }
    char number[64];
    *end = text;
    if (!digits || length >= sizeof number)
        return 0;
    memcpy(number, text, length);
    number[length] = 0;
    *end = text + length;
    return strtod(number, NULL);
}

dc_status dc_parse_duration(const char *text, double *seconds)
{
    static const struct {
        char letter;
        double seconds;
    } units[] = {{'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}};
    double sum = 0;
    size_t next = 0; /* the largest unit still allowed */
    const char *s = text;
    do {
        const char *end;
        double number = plain_number(s, &end);
        size_t unit = next;
        while (unit < 4 && units[unit].letter != *end)
            unit++;
        bool bare = end != s && !*end && s == text;
        if (end == s || (unit == 4 && !bare))
            return dc_fail(DC_ERR_INPUT, "'%s' is not a duration such as 90, 45s, 15m, 2h or 1h30m", text);
        sum += number * (bare ? 1 : units[unit].seconds);
        next = unit + 1;
        s = bare ? end : end + 1;
    } while (*s);
    if (sum > 1e10)
        return dc_fail(DC_ERR_INPUT, "'%s' is too long a duration", text);
    *seconds = sum;
    return DC_OK;
}

dc_units_text dc_format_count(int64_t count)
{
    dc_units_text out;
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%lld", (long long)count), used = 0;
    for (int i = 0; i < n; i++) {
        if (i && digits[i - 1] != '-' && (n - i) % 3 == 0)
            out.s[used++] = ',';
        out.s[used++] = digits[i];
    }
    out.s[used] = 0;
    return out;
}

/* Three significant digits of a value in [1, 1000). */
static int significant(char *out, size_t size, double value)
{
    return snprintf(out, size, "%.*f", value < 9.995 ? 2 : value < 99.95 ? 1 : 0, value);
}

dc_units_text dc_format_count_short(double count)
{
    static const char suffixes[] = " kMGT";
    dc_units_text out;
    double size = fabs(count);
    int step = 0;
    for (; size >= 999.5 && step < 4; step++)
        size /= 1000;
    if (!(size < 1e6)) { /* beyond any suffix, infinite or not a number */
        snprintf(out.s, sizeof out.s, "%.3g", count);
    } else if (!step) {
        snprintf(out.s, sizeof out.s, "%.0f", count);
    } else {
        char digits[16];
        significant(digits, sizeof digits, size);
        snprintf(out.s, sizeof out.s, "%s%s%c", count < 0 ? "-" : "", digits, suffixes[step]);
    }
    return out;
}

dc_units_text dc_format_bytes(double bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    dc_units_text out;
    int step = 0;
    for (; bytes >= 1023.5 && step < 4; step++)
        bytes /= 1024;
    snprintf(out.s, sizeof out.s, "%.*f %s", step && bytes < 99.95 ? 1 : 0, bytes, units[step]);
    return out;
}

dc_units_text dc_format_duration(double time_seconds)
{
    dc_units_text out;
    if (!(time_seconds >= 0 && time_seconds < 1e15)) {
        snprintf(out.s, sizeof out.s, "?");
    } else if (time_seconds < 9.95) {
        snprintf(out.s, sizeof out.s, "%.1fs", time_seconds);
    } else {
        long long s = llround(time_seconds), minutes = s / 60, hours = minutes / 60;
        if (s < 60)
            snprintf(out.s, sizeof out.s, "%llds", s);
        else if (minutes < 60)
            snprintf(out.s, sizeof out.s, "%lldm %02llds", minutes, s % 60);
        else if (hours < 24)
            snprintf(out.s, sizeof out.s, "%lldh %02lldm", hours, minutes % 60);
        else
            snprintf(out.s, sizeof out.s, "%lldd %02lldh", hours / 24, hours % 24);
    }
    return out;
}

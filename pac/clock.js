// The functions of PAC that ask for the time, for browser.go. Where wraps is true, as in
// Chromium, a range whose end comes before its begin goes over the turn of the week,
// year or day; where it is false, as in pacparser, it is empty.
(function (global, wraps) {
  var days = names("SUN MON TUE WED THU FRI SAT");
  var months = names("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC");

  function names(list) {
    var numbers = {};
    list.split(" ").forEach(function (name, i) { numbers[name] = i; });
    return numbers;
  }

  function number(numbers, name) {
    return name in numbers ? numbers[name] : -1;
  }

  function between(from, now, to) {
    if (from <= to || !wraps) return from <= now && now <= to;
    return from <= now || now <= to;
  }

  // read splits "GMT" from the end of a function's arguments.
  function read(list) {
    var given = Array.prototype.slice.call(list), gmt = given.length > 0 && given[given.length - 1] == "GMT";
    if (gmt) given.pop();
    var now = new Date();
    return {
      given: given,
      none: list.length == 0,
      now: now,
      get: function (what) { return now[(gmt ? "getUTC" : "get") + what](); },
      // local is the moment, or another whose local time is the moment's in GMT.
      local: function () {
        if (!gmt) return now;
        return new Date(now.getUTCFullYear(), now.getUTCMonth(), now.getUTCDate(),
          now.getUTCHours(), now.getUTCMinutes(), now.getUTCSeconds(), now.getMilliseconds());
      }
    };
  }

  // integer is parseInt, which takes a leading zero for octal where wraps is false.
  function integer(text) {
    return parseInt(text, !wraps && /^\s*0\d/.test(text) ? 8 : undefined);
  }

  // put sets what the parts say: a name is a month, a number below 32 a day, another a
  // year. It returns whether there was a day.
  function put(date, parts) {
    var day = false;
    parts.forEach(function (part) {
      var n = integer(part);
      if (isNaN(n)) {
        date.setMonth(number(months, part));
      } else if (n < 32) {
        date.setDate(n);
        day = true;
      } else {
        date.setFullYear(n);
      }
    });
    return day;
  }

  global.weekdayRange = function weekdayRange() {
    if (arguments.length == 0) return false;
    var call = read(arguments);
    var first = number(days, arguments[0]);
    var last = call.given.length == 2 ? number(days, arguments[1]) : first;
    return first != -1 && last != -1 && between(first, call.get("Day"), last);
  };

  global.dateRange = function dateRange() {
    var call = read(arguments), given = call.given;
    if (call.none) return false;
    if (given.length == 1) {
      var n = integer(given[0]);
      if (isNaN(n)) return call.get("Month") == number(months, given[0]);
      return call.get(n < 32 ? "Date" : "FullYear") == n;
    }
    var half = given.length >> 1, year = call.now.getFullYear();
    var from = new Date(year, 0, 1), to = new Date(year, 11, 31, 23, 59, 59);
    var day = put(from, given.slice(0, half));
    put(to, given.slice(half));
    if (day && given.length <= 2) {
      from.setMonth(call.now.getMonth());
      to.setMonth(call.now.getMonth());
    }
    return between(from, call.local(), to);
  };

  global.timeRange = function timeRange() {
    var call = read(arguments), given = call.given, hour = call.get("Hours"), half = given.length >> 1;
    if (call.none) return false;
    switch (given.length) {
    case 1:
      return hour == given[0];
    case 2:
      return given[0] <= hour && hour <= given[1];
    case 4:
    case 6:
      var from = new Date(), to = new Date();
      if (half == 3) {
        from.setSeconds(given[2]);
        to.setSeconds(given[5]);
      }
      from.setHours(given[0]);
      from.setMinutes(given[1]);
      to.setHours(given[half]);
      to.setMinutes(given[half + 1]);
      if (half == 2) to.setSeconds(59);
      return between(from, call.local(), to);
    }
    throw "timeRange: wrong number of arguments";
  };
})

package app

// A ConfigError says what is wrong with a configuration.
type ConfigError struct{ err error }

func (e *ConfigError) Error() string { return e.err.Error() }
func (e *ConfigError) Unwrap() error { return e.err }

// invalid marks err as one of the configuration; nil stays nil.
func invalid(err error) error {
	if err == nil {
		return nil
	}
	return &ConfigError{err}
}
